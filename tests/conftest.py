"""What every test may use: an environment without network or telemetry, and models made on the spot."""

from __future__ import annotations

import atexit
import copy
import functools
import os
import shutil
import string
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    ToyModel = Callable[..., PreTrainedModel]

# A worker of pytest-xdist inherits what the process that started it has set below.
_HOME_OF_THE_PERSON = os.environ.setdefault("HOME_BEFORE_TESTS", os.environ.get("TUNESMITH_HOME", ""))
_HOME = tempfile.mkdtemp(prefix="tunesmith-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
# Set at import, before any test module imports torch or transformers, which read some of these once.
os.environ.update(
    TUNESMITH_HOME=_HOME,
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    DO_NOT_TRACK="1",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="Agg",
)
# Toys gain nothing from a second thread, and threads that wait for one another on a busy machine lose a lot.
os.environ.setdefault("OMP_NUM_THREADS", "1")

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful toy<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML with a default system prompt, letter for letter the form of SmolLM2's template."""

_TEXT = (
    "Is this movie review positive or negative? The film was wonderful, funny and moving, and the acting was great. "
    "The plot was dull, the jokes were bad and nothing worked. You are a helpful toy system user assistant. "
    "What is the capital of France? Summarize the following dialogue in one sentence, please, as well as you can. "
)


def copied(make: ToyModel) -> ToyModel:
    """Make each model once a session and hand out copies: less than half the time, and no test sees another's."""
    made: dict[str, PreTrainedModel] = {}

    @functools.wraps(make)
    def copy_of(*kind: str, **keys: Any) -> PreTrainedModel:
        asked = repr((kind, sorted(keys.items())))
        if asked not in made:
            made[asked] = make(*kind, **keys)
        return copy.deepcopy(made[asked])

    return copy_of


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test marked `network` use the package registry, and keep what it pulls in the person's own cache."""
    for name in ("HF_HUB_OFFLINE", "TUNESMITH_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    if _HOME_OF_THE_PERSON:
        monkeypatch.setenv("TUNESMITH_HOME", _HOME_OF_THE_PERSON)
    else:
        monkeypatch.delenv("TUNESMITH_HOME")


@pytest.fixture(scope="session")
def toy_tokenizer() -> PreTrainedTokenizerBase:
    """A byte-level BPE of about 400 tokens: any text goes in and comes out unchanged; ids 0, 1, 2 as in SmolLM2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_TEXT] * 2, trainer)
    toy: PreTrainedTokenizerBase = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers has none
        tokenizer_object=tokenizer,
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        clean_up_tokenization_spaces=False,
    )
    toy.chat_template = CHAT_TEMPLATE
    return toy


@pytest.fixture(scope="session")
def toy_reading_tokenizer() -> PreTrainedTokenizerBase:
    """A WordPiece tokenizer of about 270 pieces as BERT's: [CLS] text [SEP], or [CLS] first [SEP] second [SEP]."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [letter for letter in string.printable if letter.strip() and letter == letter.lower()]
    words = sorted({word.strip(".,?").lower() for word in _TEXT.split()})
    pieces = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *words])
    vocabulary = {piece: place for place, piece in enumerate(pieces)}  # by hand: a trainer breaks ties by chance
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    toy: PreTrainedTokenizerBase = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers has none
        tokenizer_object=tokenizer,
        model_max_length=512,
        **dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True)),
    )
    return toy


ENCODERS = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert", "deberta": "DebertaV2"}
ENCODERS |= {"modernbert": "ModernBert"}


@pytest.fixture(scope="session")
def toy_encoder(toy_reading_tokenizer: PreTrainedTokenizerBase) -> ToyModel:
    """Make a random encoder: ``toy_encoder("bert", "ForTokenClassification", num_labels=5)``; "Model" is its body.

    Kinds: bert, roberta, distilbert, deberta, modernbert. float32, no dropout, two layers of width 32.
    """
    import torch
    import transformers

    @copied
    def make(kind: str = "bert", head: str = "ForSequenceClassification", *, seed: int = 0, **keys: Any) -> Any:
        name = ENCODERS[kind]
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        special = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "max_position_embeddings": 512}
        if kind == "distilbert":
            shape, dropout = {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4}, {"dropout": 0.0}
            dropout |= {"attention_dropout": 0.0, "seq_classif_dropout": 0.0, "qa_dropout": 0.0}
        elif kind == "deberta":
            shape |= {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "norm_rel_ebd": "layer_norm"}
        elif kind == "modernbert":
            special |= {"global_attn_every_n_layers": 2, "local_attention": 8}
        config = getattr(transformers, f"{name}Config")(
            **{"vocab_size": len(toy_reading_tokenizer), "initializer_range": 0.2}
            | {**shape, **dropout, **special, **keys}
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: Any = getattr(transformers, f"{name}{head}")(config)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def toy_encoder_folder(
    toy_encoder: ToyModel, toy_reading_tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The body of a toy BERT, without a head, and its tokenizer on disk. Only to be read."""
    folder = tmp_path_factory.mktemp("toy") / "toy-bert"
    toy_encoder("bert", "Model").save_pretrained(folder)
    toy_reading_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def toy_model(toy_tokenizer: PreTrainedTokenizerBase) -> ToyModel:
    """Make a random model of a kind: ``toy_model("gemma2", num_hidden_layers=1, seed=3)``.

    Kinds: llama, mistral, qwen2, qwen3, gemma, gemma2, gemma3, phi, phi3, gpt2, and the text-to-text t5 and flan
    (gated, untied). float32, evaluation mode, two layers of width 32, weights wide enough (0.2) that logits differ by
    whole nats and a wrong mask or position shows. More keys go to the config.
    """
    import torch
    import transformers

    @copied
    def make(kind: str = "llama", *, seed: int = 0, **keys: Any) -> PreTrainedModel:
        common = {
            "vocab_size": len(toy_tokenizer),
            "bos_token_id": toy_tokenizer.bos_token_id,
            "eos_token_id": toy_tokenizer.eos_token_id,
            "pad_token_id": toy_tokenizer.pad_token_id,
            "initializer_range": 0.2,
            "tie_word_embeddings": True,
        }
        automatic: Any = transformers.AutoModelForCausalLM
        if kind in ("t5", "flan"):
            automatic = transformers.AutoModelForSeq2SeqLM
            gated = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False} if kind == "flan" else {}
            config: Any = transformers.T5Config(
                **{**common, "d_model": 32, "d_ff": 64, "d_kv": 8, "num_layers": 2, "num_heads": 4}
                | {"dropout_rate": 0.0, "decoder_start_token_id": toy_tokenizer.pad_token_id}
                | gated
                | keys
            )
        elif kind == "gpt2":
            config = transformers.GPT2Config(
                **{**common, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
                | {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
                | keys
            )
        else:
            name = "Gemma3Text" if kind == "gemma3" else kind.capitalize()
            config = getattr(transformers, f"{name}Config")(
                **{**common, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
                | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512}
                | keys
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # PyTorch's fused attention adds up otherwise once T5's position bias takes a gradient.
            attention = {"attn_implementation": "eager"} if config.is_encoder_decoder else {}
            model: Any = automatic.from_config(config, dtype=torch.float32, **attention)
            if kind == "flan":  # transformers ties every T5 it makes; only loading unties those whose head differs
                model.lm_head.weight = torch.nn.Parameter(0.2 * torch.randn(config.vocab_size, config.d_model))
                model.all_tied_weights_keys.pop("lm_head.weight")
            with torch.no_grad():  # transformers leaves the padding token's row at zero, and ours also ends turns
                model.get_input_embeddings().weight[config.pad_token_id].normal_(0.0, 0.2)
        made: PreTrainedModel = model.eval()
        return made

    return make


@pytest.fixture
def toy_llama(toy_model: ToyModel) -> PreTrainedModel:
    """A fresh random Llama, the same weights every time."""
    return toy_model("llama")


@pytest.fixture(scope="session")
def toy_folder(
    toy_model: ToyModel, toy_tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The toy Llama and its tokenizer on disk, as `load` and a task file's `model:` take it. Only to be read."""
    folder = tmp_path_factory.mktemp("toy") / "toy-llama"
    toy_model("llama").save_pretrained(folder)
    toy_tokenizer.save_pretrained(folder)
    return folder
