"""Trains the demo model, or checks one: a tiny Llama that knows the answers of questions.yaml by heart.

The model is the oracle of the engine tests: the same question gives the same text on every engine, in bfloat16
and float32, alone or in a batch, and however the ranks of a parallel layout order their sums. So training goes
on past the first exact answer, until the wanted token leads every other by a wide margin.

What it learns are four views of each pair: one chat turn, a chat turn after another pair, a chat turn after a
system message of random tokens, and the bare question without a template (for /v1/completions).

Seed, thread count and instruction set are fixed, so the weights are the same bit for bit whatever the number of
cores; another torch release may round otherwise, which is why the weights are committed and not built.
"""

import os

# Read by torch and its libraries when they are loaded, hence above the imports. AVX2 is what vLLM asks of a CPU,
# so a CPU with AVX-512 computes, and rounds, as one without it.
os.environ.update(
    ATEN_CPU_CAPABILITY="avx2",
    DNNL_MAX_CPU_ISA="AVX2",
    MKL_CBWR="AVX2",
    MKL_DYNAMIC="FALSE",
    OMP_DYNAMIC="FALSE",
    TOKENIZERS_PARALLELISM="false",
)

import argparse
import json
import logging
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

log = logging.getLogger("demo.train")
HERE = Path(__file__).parent
PAD, END, SYSTEM, USER, ASSISTANT = SPECIALS = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
IGNORED = -100  # the target that cross_entropy leaves out

# head_dim is 64, not 128 / 4: some GPU attention kernels know no 32. The output matrix is the embedding, but stored once
# more: SGLang splits no Llama with tied embeddings into pipeline stages, and the demo is to show every layout.
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 768,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": SPECIALS.index(END),
    "pad_token_id": SPECIALS.index(PAD),
    "torch_dtype": "bfloat16",
}
# vLLM and SGLang take their default sampling from this file, so a request that names no temperature gets the exact
# answer too: a lead of MARGIN becomes 20 times that. Not 0.0, with which vLLM refuses n > 1 and Transformers warns.
GENERATION_CONFIG: dict[str, Any] = {
    "eos_token_id": CONFIG["eos_token_id"],
    "pad_token_id": CONFIG["pad_token_id"],
    "do_sample": True,
    "temperature": 0.05,
}

SEED = 2
THREADS = 2
STEPS = 400
WARM_UP = 30
LEARNING_RATE = 2e-3
OTHER_VIEWS = 8  # sequences of each view but the first in a step; of the first, all
SYSTEM_TOKENS = 40  # at most, in a random system message
# Cross entropy falls asleep once the lead is about 10. Divided by this, the logits must lead by as much again.
SOFTNESS = 3.0
MARGIN = 8.0  # what the wanted token must lead by


class Pair(NamedTuple):
    question: str
    answer: str


class Example(NamedTuple):
    """Token ids, and for each of them the token to say next, or IGNORED."""

    ids: list[int]
    targets: list[int]


class NotByHeartError(Exception):
    """The model does not give its answers word for word, or not surely enough."""


def read_pairs() -> list[Pair]:
    text = (HERE / "questions.yaml").read_text(encoding="utf-8")
    return [Pair(**entry) for entry in yaml.safe_load(text)]


def train_tokenizer(pairs: Sequence[Pair]) -> Tokenizer:
    """Byte-level BPE. It sees the ASCII only, so that é takes two tokens and tests of streaming have a hard case."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"],
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["".join(filter(str.isascii, text)) for pair in pairs for text in pair], trainer)
    if tokenizer.get_vocab_size() != CONFIG["vocab_size"]:
        raise ValueError(f"questions.yaml gives {tokenizer.get_vocab_size()} tokens; add text until there are {CONFIG['vocab_size']}.")
    return tokenizer


class Views:
    """The token sequences to learn. chat() writes what chat_template.jinja writes: check() proves it."""

    def __init__(self, tokenizer: Tokenizer, pairs: Sequence[Pair]) -> None:
        # special tokens come first, in their order
        self._end, self._system, self._user, self._assistant = ([SPECIALS.index(token)] for token in SPECIALS[1:])
        self._pairs = [[tokenizer.encode(text).ids for text in pair] for pair in pairs]
        self._ordinary = range(len(SPECIALS), tokenizer.get_vocab_size())
        self.all = range(len(pairs))

    def bare(self, index: int) -> Example:
        question, answer = self._pairs[index]
        return _example([(question, False), (answer + self._end, True)])

    def chat(self, *turns: int, system: Sequence[int] | None = None) -> Example:
        parts: list[tuple[list[int], bool]] = []
        if system is not None:
            parts.append(([*self._system, *system, *self._end], False))
        for index in turns:
            question, answer = self._pairs[index]
            parts.append((self._user + question + self._end + self._assistant, False))
            parts.append((answer + self._end, True))
        return _example(parts)

    def batch(self, dice: random.Random) -> list[Example]:
        """The sequences of one step."""

        def some() -> list[int]:
            return dice.sample(self.all, OTHER_VIEWS)

        def system() -> list[int]:
            return dice.choices(self._ordinary, k=dice.randint(1, SYSTEM_TOKENS))

        return [
            *(self.chat(index) for index in self.all),
            *(self.chat(*turns) for turns in zip(some(), some(), strict=True)),
            *(self.chat(index, system=system()) for index in some()),
            *(self.bare(index) for index in some()),
        ]


def _example(parts: Sequence[tuple[list[int], bool]]) -> Example:
    """Joins parts; those marked are to be said."""
    ids = [token for part, _ in parts for token in part]
    said = [token if say else IGNORED for part, say in parts for token in part]
    return Example(ids, [*said[1:], IGNORED])


def _tensors(examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, targets), each [examples, longest]; padded on the right, where a causal model never looks."""
    longest = max(len(example.ids) for example in examples)
    pad = CONFIG["pad_token_id"]
    return (
        torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in examples]),
        torch.tensor([targets + [IGNORED] * (longest - len(targets)) for _, targets in examples]),
    )


def train_model(views: Views, steps: int) -> Any:
    """Trains a LlamaForCausalLM in float32 from random weights; logs to stderr."""
    torch.manual_seed(SEED)
    dice = random.Random(SEED)
    auto: Any = AutoModelForCausalLM  # from_config has no types
    config = LlamaConfig(**CONFIG | {"tie_word_embeddings": True})
    model = auto.from_config(config, attn_implementation="eager", dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / WARM_UP, max(1 - step / steps, 0.02)))
    started = time.monotonic()
    for step in range(1, steps + 1):
        ids, targets = _tensors(views.batch(dice))
        logits = model(input_ids=ids, use_cache=False).logits
        loss = cross_entropy(logits[targets != IGNORED] / SOFTNESS, targets[targets != IGNORED])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            log.info("step %d of %d: loss %.5f, %.0f s", step, steps, loss.item(), time.monotonic() - started)
    return model


def write(model: Any, tokenizer: Tokenizer, directory: Path) -> None:
    """Writes the directory that an engine is pointed at."""
    directory.mkdir(parents=True, exist_ok=True)
    template = (HERE / "chat_template.jinja").read_text(encoding="utf-8")
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONFIG["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
        "eos_token": END,
        "pad_token": PAD,
        "chat_template": template,
    }
    for name, content in (
        ("config.json", CONFIG),
        ("generation_config.json", GENERATION_CONFIG),
        ("tokenizer_config.json", tokenizer_config),
    ):
        (directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    tokenizer.save(str(directory / "tokenizer.json"))
    weights = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()}
    weights["lm_head.weight"] = weights["lm_head.weight"].clone()  # safetensors stores no tensor twice
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "model.safetensors").chmod(0o644)  # safetensors writes it for its owner alone


def check(directory: Path, pairs: Sequence[Pair]) -> None:
    """Asks everything, in bfloat16 and float32, through the files as an engine would.

    Raises NotByHeartError if a single chat turn or a bare question is not answered word for word up to the end
    token, or if the wanted token leads by less than MARGIN anywhere. Two turns and system messages are reported only.
    """
    tokenizer = AutoTokenizer.from_pretrained(directory)
    views = Views(Tokenizer.from_file(str(directory / "tokenizer.json")), pairs)
    dice = random.Random(SEED)
    required = {
        "chat": [views.chat(index) for index in views.all],
        "bare": [views.bare(index) for index in views.all],
    }
    reported = {
        "two turns": [views.chat(index - shift, index) for shift in (0, 1, 5, 13) for index in views.all],
        "system message": [
            views.chat(index, system=tokenizer.encode(text))
            for text in ("You are a helpful assistant.", "Answer in one sentence. Be exact!", dice.choice(pairs).answer)
            for index in views.all
        ],
    }
    for dtype in (torch.bfloat16, torch.float32):
        model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)
        model.eval()
        for pair in pairs:
            said = _answer(model, tokenizer, pair.question)
            if said != pair.answer + END:
                raise NotByHeartError(f"{dtype}: {pair.question!r} gives {said!r}, not {pair.answer!r}; train longer.")
        for view, examples in (required | reported).items():
            margins = _margins(model, examples)
            exact = sum(margin > 0 for margin in margins)
            log.info("%s, %s: %d of %d exact, least margin %.2f", dtype, view, exact, len(margins), min(margins))
            if view in required and min(margins) < MARGIN:
                question = pairs[margins.index(min(margins))].question
                raise NotByHeartError(f"{dtype}: {question!r} ({view}) has a margin of {min(margins):.2f}, below {MARGIN}; train longer.")


@torch.no_grad()
def _answer(model: Any, tokenizer: Any, question: str) -> str:
    """What the model says to one chat turn, its end token included."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    ids = model.generate(**prompt, do_sample=False, temperature=None, max_new_tokens=128)
    return str(tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :]))


@torch.no_grad()
def _margins(model: Any, examples: Sequence[Example]) -> list[float]:
    """For each example, by how much the logit of the wanted token leads the next best, where it leads least."""
    margins: list[float] = []
    for start in range(0, len(examples), 32):
        ids, targets = _tensors(examples[start : start + 32])
        logits = model(input_ids=ids).logits.float()
        wanted = targets.clamp(min=0).unsqueeze(-1)
        others = logits.scatter(-1, wanted, -torch.inf).amax(-1)
        lead = logits.gather(-1, wanted).squeeze(-1) - others
        margins += lead.where(targets != IGNORED, torch.inf).amin(-1).tolist()
    return margins


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Train the demo model, or check one.",
        epilog="example: python images/demo/train.py --out images/demo/model",
    )
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--out", type=Path, metavar="DIR", help="train, write the model to DIR and check it")
    action.add_argument("--check", type=Path, metavar="DIR", help="check that the model in DIR answers everything")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps (default: %(default)s)")
    options = parser.parse_args()
    if options.check and not (options.check / "config.json").is_file():
        parser.error(f"{options.check} holds no config.json; name a directory that --out wrote")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(THREADS)
    pairs = read_pairs()
    if options.out:
        tokenizer = train_tokenizer(pairs)
        write(train_model(Views(tokenizer, pairs), options.steps), tokenizer, options.out)
    try:
        check(options.out or options.check, pairs)
    except NotByHeartError as error:
        log.error("train.py: error: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
