"""Token ids and loss spans, over chat templates of every family and tokenizers that merge wherever they can."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tunesmith.core.errors import Mistake
from tunesmith.core.records import Message
from tunesmith.prompts.render import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% if strftime_now is defined %}{% set date = strftime_now('%d %b %Y') %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date + '\n\n' }}"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] | trim }}{% endif %}{{ '<|eot_id|>' }}"
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (  # of the first days: no system prompt, a space and no special token before the answer
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + '</s>' }}{% endif %}{% endfor %}"
)
PHI3 = (  # eos after the end mark, wherever a conversation happens to end
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
QWEN3 = (  # the opening has an empty thought, and so has the last answer, but not the earlier ones
    "{% for message in messages %}{% if message['role'] == 'assistant' and loop.last %}"
    "{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' + message['content'] + '<|im_end|>\n' }}{% else %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
DEEPSEEK_R1 = (  # the opening begins a thought that the finished conversation does not show
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<|user|>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|assistant|>' + message['content'] + '<|end|>' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|><think>\n' }}{% endif %}"
)
OPEN = (  # no end mark at all: the model would never learn to stop
    "{% for message in messages %}{{ '### ' + message['role'] + ':\n' + message['content'] + '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### assistant:\n' }}{% endif %}"
)
TEMPLATES = {
    "smollm2": SMOLLM2, "chatml": CHATML, "llama3": LLAMA3, "gemma": GEMMA, "mistral": MISTRAL, "phi3": PHI3,
    "qwen3": QWEN3, "deepseek_r1": DEEPSEEK_R1, "open": OPEN, "plain": None,
}  # fmt: skip
ENDS = dict.fromkeys(TEMPLATES, "</s>") | {
    "smollm2": "<|im_end|>", "chatml": "<|im_end|>", "llama3": "<|eot_id|>", "gemma": "<end_of_turn>",
    "phi3": "<|end|>", "qwen3": "<|im_end|>", "deepseek_r1": "<|end|>",
}  # fmt: skip
REWRITES = {"qwen3", "deepseek_r1"}
"""Templates that write an earlier turn otherwise than they would have opened it."""
SPECIAL = [
    "<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "<start_of_turn>", "<end_of_turn>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>",
]  # fmt: skip
LESSONS = [
    "positive negative yes no I do not know. Is this review positive or negative?\n\nA fine film.\nAnswer in one word:",
    "User: Who?\nAssistant: Jane\n\nYes.\n Yes.\n\n### user:\nWhy?\n\n### assistant:\nBecause.\n\n",
    "[INST] Why? [/INST] Because. A:Jane A:Jane",
] * 4

Tokenizers = Callable[[str], "PreTrainedTokenizerBase"]


def _bytes(pre_tokenizer_splits: bool) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre_tokenizer_splits)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=460, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(LESSONS, trainer)
    return tokenizer


def _metaspace(scheme: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Metaspace(prepend_scheme=scheme), decoders.ByteFallback(), decoders.Fuse()]
    )
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=480, special_tokens=SPECIAL + fallback, show_progress=False)
    tokenizer.train_from_iterator(LESSONS, trainer)
    return tokenizer


@pytest.fixture(scope="module")
def tokenizers() -> Tokenizers:
    """Tokenizers by kind: GPT-2's, one that merges across anything, Llama 2's with a space before the first word."""
    from transformers import PreTrainedTokenizerFast

    made = {"bytes": _bytes(True), "greedy": _bytes(False), "metaspace": _metaspace("first")}

    def wrap(kind: str) -> PreTrainedTokenizerBase:
        wrapped: PreTrainedTokenizerBase = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers has none
            tokenizer_object=made[kind],
            unk_token="<unk>",
            bos_token="<s>",
            eos_token="</s>",
            clean_up_tokenization_spaces=False,
        )
        return wrapped

    return wrap


TOGETHER = [
    *(("bytes", family) for family in TEMPLATES),
    *(("greedy", family) for family in ("chatml", "llama3", "mistral", "open", "plain")),
    *(("metaspace", family) for family in ("gemma", "llama3", "mistral", "phi3", "plain")),
]


@pytest.fixture(scope="module", params=TOGETHER, ids=["-".join(pair) for pair in TOGETHER])
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    kind, family = request.param
    return kind, family


@pytest.fixture(scope="module")
def kind(pair: tuple[str, str]) -> str:
    return pair[0]


@pytest.fixture(scope="module")
def family(pair: tuple[str, str]) -> str:
    return pair[1]


@pytest.fixture(scope="module")
def template(tokenizers: Tokenizers, kind: str, family: str) -> Template:
    tokenizer = tokenizers(kind)
    tokenizer.chat_template = TEMPLATES[family]
    return Template(tokenizer)


def talk(*contents: str, system: str = "", trained: tuple[bool, ...] = ()) -> tuple[Message, ...]:
    """User and assistant in turn."""
    marks = [*trained, *[True] * len(contents)]
    turns = [
        Message("assistant" if place % 2 else "user", content, marks[place // 2] if place % 2 else True)
        for place, content in enumerate(contents)
    ]
    return (Message("system", system), *turns) if system else tuple(turns)


def trained_texts(template: Template, messages: tuple[Message, ...]) -> list[str]:
    """The text of each run of trained tokens."""
    row = template.conversation(messages)
    runs: list[list[int]] = []
    before = 0.0
    for token, weight in zip(row.ids, row.weights, strict=True):
        if weight and not before:
            runs.append([])
        if weight:
            runs[-1].append(token)
        before = weight
    return [template.tokenizer.decode(run) for run in runs]


CONVERSATIONS = [
    talk("Is this review positive or negative?\n\nA fine film.", "positive"),
    talk("Who?", "Jane"),
    talk("Why?", "\n\nBecause.\n"),
    talk("Why?\n", " Because it is so:\n\n  - one\n  - two"),
    talk("Wer?", "Zoë — 今日は 😀"),
    talk("Who?", "Jane", "Why?", "I do not know."),
    talk("Who?", "Jane", system="Answer with one word:"),
]


@pytest.mark.parametrize("messages", CONVERSATIONS, ids=range(len(CONVERSATIONS)))
def test_a_prompt_is_how_its_conversation_begins(
    template: Template, family: str, messages: tuple[Message, ...]
) -> None:
    if family in REWRITES:
        messages = (*(Message(m.role, m.content, trained=False) for m in messages[:-1]), messages[-1])
    prompt, row = template.prompt(messages[:-1]), template.conversation(messages)
    assert row.ids[: len(prompt)] == prompt
    assert row.weights[len(prompt)] == 1.0
    assert len(row.ids) == len(row.weights)


@pytest.mark.parametrize("messages", CONVERSATIONS[:5], ids=range(5))
def test_the_answer_and_its_real_end_are_trained_and_nothing_else(
    template: Template, family: str, messages: tuple[Message, ...]
) -> None:
    (learned,) = trained_texts(template, messages)
    assert learned.endswith(ENDS[family])
    assert learned.removesuffix(ENDS[family]).strip() == messages[-1].content.strip()


def test_every_turn_is_trained_with_its_end(template: Template, family: str) -> None:
    messages = talk("Who?", "Jane", "Why?", "I do not know.")
    if family in REWRITES:
        with pytest.raises(Mistake, match="turn 2 of 4 cannot be learned with its chat template, it is rewritten"):
            template.conversation(messages)
        messages = talk("Who?", "Jane", "Why?", "I do not know.", trained=(False, True))
        assert [text.strip() for text in trained_texts(template, messages)] == ["I do not know." + ENDS[family]]
        return
    first = "Jane" + (
        ENDS[family] if family != "open" else ""
    )  # nothing says "stop" inside a template without end marks
    assert [text.lstrip() for text in trained_texts(template, messages)] == [first, "I do not know." + ENDS[family]]


def test_untrained_turns_are_context(template: Template) -> None:
    messages = talk("Who?", "Jane", "Why?", "I do not know.", trained=(False, True))
    assert len(trained_texts(template, messages)) == 1


def test_ids_are_those_of_the_rendered_text_in_one_tokenization(template: Template, kind: str, family: str) -> None:
    if family in {"plain", "open", "deepseek_r1"}:
        return  # what is rendered is not the template's own output
    if kind == "greedy" or (kind == "bytes" and family in {"llama3", "qwen3"}):
        return  # merges across the beginning of the answer ("\n\n" by GPT-2's rules); split there, as tested above
    messages = talk(
        "Is this review positive or negative?\n\nA fine film.", "positive", "Why?", "Because.", trained=(False,)
    )
    tokenizer = template.tokenizer
    turns = [{"role": message.role, "content": message.content} for message in messages]
    text = tokenizer.apply_chat_template(turns, tokenize=False, enable_thinking=False)
    text = re.sub(r"(?<=Today Date: ).*", "26 Jul 2024", text)
    assert list(template.conversation(messages).ids) == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_the_end_ids_are_the_templates_and_the_tokenizers(template: Template, family: str) -> None:
    tokens = template.tokenizer.convert_ids_to_tokens(list(template.end_ids))
    assert tokens == list(dict.fromkeys([ENDS[family], "</s>"]))


def test_a_system_prompt_is_never_lost(template: Template) -> None:
    text = template.tokenizer.decode(template.prompt(talk("Who?", system="Answer with one word:")))
    assert "Answer with one word:" in text
    assert text.index("Answer with one word:") < text.index("Who?")


@pytest.mark.parametrize("template_of", [GEMMA, MISTRAL])
def test_a_late_system_prompt_is_not_lost_where_there_is_no_place_for_it(
    tokenizers: Tokenizers, template_of: str
) -> None:
    template = with_template(tokenizers("bytes"), template_of)
    prompt = template.prompt((*talk("Who?", "Jane"), Message("system", "Be brief.")))
    assert "Be brief." in template.tokenizer.decode(prompt)


def test_at_most_one_beginning_of_sequence(template: Template) -> None:
    ids = template.conversation(talk("Who?", "Jane")).ids
    assert ids.count(template.tokenizer.bos_token_id) <= 1


def test_the_short_way_gives_what_the_long_way_does(template: Template, family: str) -> None:
    """A special token before each answer lets one tokenization do; looking at every beginning must come to the same."""
    marks = (False,) if family in REWRITES else ()
    rows = [talk("Who?\n\n", "Jane", "Why", " So.\n", trained=marks), talk("Is it?", "\n\nyes", system="Be brief.")]
    slow = Template(template.tokenizer)
    vars(slow)["_tail"] = None
    assert template.conversations(rows) == slow.conversations(rows)
    assert template.prompts(row[:-1] for row in rows) == slow.prompts(row[:-1] for row in rows)


WORDS = some.text("ab \n.'Jé", max_size=8)


@settings(max_examples=15, deadline=None)
@given(some.lists(some.tuples(WORDS, WORDS), min_size=1, max_size=3))
def test_any_prompt_is_how_its_conversation_begins(template: Template, pairs: list[tuple[str, str]]) -> None:
    contents = [content for pair in pairs for content in pair]
    messages = talk(*contents, trained=(False,) * (len(pairs) - 1))
    prompt, row = template.prompt(messages[:-1]), template.conversation(messages)
    assert row.ids[: len(prompt)] == prompt
    assert set(row.weights[: len(prompt)]) <= {0.0}
    last = max(place for place, weight in enumerate(row.weights) if weight)
    assert row.ids[last] in template.end_ids


def test_many_rows_are_each_as_alone(template: Template) -> None:
    rows = [talk(f"Question {number}?", f"Answer {number}.") for number in range(260)]
    assert template.conversations(rows) == [template.conversation(row) for row in rows]
    assert template.prompts(row[:1] for row in rows) == [template.prompt(row[:1]) for row in rows]


def test_candidates_continue_the_prompt(template: Template) -> None:
    asked = talk("Is this review positive or negative?\n\nA fine film.")
    found = template.candidates(asked, ["positive", "negative"])
    prompt = template.prompt(asked)
    assert not found.ended
    for text, ids in zip(["positive", "negative"], found.ids, strict=True):
        row = template.conversation((*asked, Message("assistant", text)))
        assert row.ids[len(prompt) : len(prompt) + len(ids)] == ids
        assert row.ids[len(prompt) + len(ids)] in template.end_ids
        assert template.decode(ids).strip() == text
    assert template.candidates(talk("Another?"), ["positive", "negative"]).ids == found.ids


def test_a_candidate_that_begins_another_is_told_by_its_end(template: Template) -> None:
    found = template.candidates(talk("Is it?"), ["no", "no no", "yes"])
    assert found.ended
    assert {ids[-1] for ids in found.ids} == {template.end_ids[0]}


def test_candidates_that_cannot_be_told_apart_are_a_mistake(template: Template) -> None:
    with pytest.raises(Mistake, match="two have the same tokens"):
        template.candidates(talk("Is it?"), ["yes", "yes"])


def test_decoding_leaves_the_end_out(template: Template) -> None:
    row = template.conversation(talk("Who?", "Jane"))
    answer = [token for token, weight in zip(row.ids, row.weights, strict=True) if weight]
    assert template.decode(answer).strip() == "Jane"


def test_the_hash_tells_templates_and_tokenizers_apart(tokenizers: Tokenizers) -> None:
    def hash_of(kind: str, family: str) -> str:
        tokenizer = tokenizers(kind)
        tokenizer.chat_template = TEMPLATES[family]
        return Template(tokenizer).hash

    assert hash_of("bytes", "chatml") == hash_of("bytes", "chatml")
    assert len({hash_of("bytes", "chatml"), hash_of("bytes", "smollm2"), hash_of("greedy", "chatml")}) == 3


def test_the_date_in_a_template_stands_still(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers("bytes")
    tokenizer.chat_template = LLAMA3
    assert "Today Date: 26 Jul 2024" in tokenizer.decode(Template(tokenizer).prompt(talk("Who?")))


def test_the_plain_template_of_base_models(tokenizers: Tokenizers) -> None:
    template = Template(tokenizers("bytes"))
    row = template.conversation(talk("Who?", "Jane", "Why?", "So.", system="Be brief."))
    assert template.tokenizer.decode(row.ids) == (
        "Be brief.\n\nUser: Who?\nAssistant: Jane</s>\nUser: Why?\nAssistant: So.</s>\n"
    )


def test_turns_in_the_wrong_order_are_a_mistake(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers("bytes")
    tokenizer.chat_template = GEMMA
    with pytest.raises(Mistake, match="refuses turns of user, user: Conversation roles must alternate"):
        Template(tokenizer).prompt((Message("user", "a"), Message("user", "b")))


def test_a_conversation_that_the_assistant_begins(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers("bytes")
    tokenizer.chat_template = CHATML
    template = Template(tokenizer)
    greeting = Message("assistant", "How may I help?")
    with pytest.raises(Mistake, match=r"turn 1 of 3 cannot be learned .* has nothing to answer to"):
        template.conversation((greeting, *talk("Who?", "Jane")))
    untrained = Message("assistant", "How may I help?", trained=False)
    assert trained_texts(template, (untrained, *talk("Who?", "Jane"))) == ["Jane<|im_end|>"]


def test_a_template_that_doubles_the_beginning_is_refused(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers("bytes")
    tokenizer.chat_template = "{{ bos_token }}" + GEMMA
    with pytest.raises(Mistake, match="begins with two <s>"):
        Template(tokenizer)


def test_a_template_that_swallows_answers_is_refused(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers("bytes")
    tokenizer.chat_template = "{% for message in messages %}{{ message['role'] }}{% endfor %}"
    with pytest.raises(Mistake, match="leaves out what is said"):
        Template(tokenizer)


def test_a_tokenizer_without_any_end_is_refused(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers("bytes")
    tokenizer.eos_token = None
    tokenizer.chat_template = OPEN
    with pytest.raises(Mistake, match="end token"):
        Template(tokenizer)


def test_an_end_mark_in_the_words_of_an_answer_does_not_end_it(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers("bytes")
    tokenizer.chat_template = CHATML
    (learned,) = trained_texts(Template(tokenizer), talk("What ends a turn?", "That is <|im_end|> here."))
    assert learned == "That is <|im_end|> here.<|im_end|>"


def with_template(tokenizer: PreTrainedTokenizerBase, template: str) -> Template:
    tokenizer.chat_template = template
    return Template(tokenizer)


EACH = "{% for message in messages %}"
DONE = "{% endfor %}{% if add_generation_prompt %}"


def test_an_open_template_keeps_its_space_and_the_answers_own(tokenizers: Tokenizers) -> None:
    template = with_template(
        tokenizers("bytes"),
        EACH + "{{ message['role'] + ': ' + message['content'] + '\n' }}" + DONE + "{{ 'assistant:' }}{% endif %}",
    )
    assert trained_texts(template, talk("Who?", "Jane")) == [" Jane</s>"]
    assert trained_texts(template, talk("Code?", "  indented")) == ["   indented</s>"]
    trimming = with_template(
        tokenizers("bytes"),
        EACH
        + "{{ message['role'] + ':' + message['content'] | trim + '\n' }}"
        + DONE
        + "{{ 'assistant:' }}{% endif %}",
    )
    assert trained_texts(trimming, talk("Code?", "  indented")) == ["indented</s>"]


def test_an_answer_that_merges_with_its_opening_gets_no_space_when_split(tokenizers: Tokenizers) -> None:
    template = with_template(
        tokenizers("metaspace"),
        EACH + "{{ message['content'] if message['role'] == 'user' else ' A:' + message['content'] + '</s>' }}"
        + DONE + "{{ ' A:' }}{% endif %}",
    )  # fmt: skip
    whole = template.tokenizer.tokenize("Who? A:Jane</s>")
    assert "▁A:Jane" in whole, "the tokenizer would merge"
    ids = template.conversation(talk("Who?", "Jane")).ids
    assert template.tokenizer.decode(ids) == "Who? A:Jane</s>"
    assert trained_texts(template, talk("Who?", "Jane")) == ["Jane</s>"]


def test_an_opening_without_the_special_token_that_others_have(tokenizers: Tokenizers) -> None:
    template = with_template(
        tokenizers("greedy"),
        EACH + "{% set opened = '<|assistant|>' if loop.index0 < 2 else '\nAssistant:' %}"
        "{{ '<|user|>' if message['role'] == 'user' else opened }}{{ message['content'] }}"
        "{{ '<|end|>' if message['role'] == 'assistant' }}"
        + DONE + "{{ '<|assistant|>' if messages | length < 2 else '\nAssistant:' }}{% endif %}",
    )  # fmt: skip
    messages = talk("Who?", "Jane", "Who?", " Jane")
    prompt, row = template.prompt(messages[:-1]), template.conversation(messages)
    assert row.ids[: len(prompt)] == prompt
    assert trained_texts(template, messages) == ["Jane<|end|>", " Jane<|end|>"]


def test_an_end_mark_that_takes_the_line_end_along(tokenizers: Tokenizers) -> None:
    """Phi-3's `<|end|>` swallows the white space after it: still one tokenization, still trained."""
    from tokenizers import AddedToken

    tokenizer = tokenizers("bytes")
    stop = AddedToken("<|stop|>", rstrip=True, special=True)
    tokenizer.add_special_tokens({"additional_special_tokens": [stop]})
    template = with_template(tokenizer, PHI3.replace("<|end|>", "<|stop|>"))
    messages = talk("Who?", "Jane", "Why?", "So.")
    assert trained_texts(template, messages) == ["Jane<|stop|>", "So.<|stop|>"]
    turns = [f"<|{message.role}|>\n{message.content}<|stop|>\n" for message in messages]
    assert (
        list(template.conversation(messages).ids)
        == tokenizer("".join((*turns, "</s>")), add_special_tokens=False)["input_ids"]
    )


def test_a_line_end_that_is_a_token_of_its_own_is_no_end_mark(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers("bytes")
    tokenizer.add_tokens(["\n"])
    template = with_template(tokenizer, CHATML.replace("+ '<|im_end|>'", "+ '\n<|im_end|>'"))
    assert trained_texts(template, talk("Who?", "Jane")) == ["Jane\n<|im_end|>"]


def test_an_answer_that_the_template_rewrites_is_trained_as_rewritten(tokenizers: Tokenizers) -> None:
    rewriting = CHATML.replace("message['content']", "message['content'] | replace('jane', 'Jane Doe')")
    assert trained_texts(with_template(tokenizers("bytes"), rewriting), talk("who?", "jane")) == ["Jane Doe<|im_end|>"]
