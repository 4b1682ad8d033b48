"""The step sizes of chapter 11: every rung at four step sizes, judged on the validation dialogues.

    python benchmarks/peft_ladder.py [--only prompt lora]

Prints one Markdown row a rung; the test dialogues are never read. Seed 100 is used nowhere else.
"""

import argparse

import torch

from mangalab.data import persona
from mangalab.models import load_causal_lm
from mangalab.profiles import choose_dtype
from mangalab.training import sft
from mangalab.training.peft_ladder import Rung, Tuned, fit, score
from mangalab.training.soft_prompt import EditedLlama

GRID = {"prompt": (0.01, 0.03, 0.1, 0.3), "p-tuning": (3e-3, 1e-2, 3e-2, 1e-1),
        "prefix": (3e-3, 1e-2, 3e-2, 1e-1), "ia3": (3e-3, 1e-2, 3e-2, 1e-1),
        "bitfit": (1e-3, 3e-3, 1e-2, 3e-2), "houlsby": (3e-4, 1e-3, 3e-3, 1e-2),
        "lora": (3e-4, 1e-3, 3e-3, 1e-2), "full": (3e-5, 1e-4, 3e-4, 1e-3)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=list(GRID))
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    args = parser.parse_args()
    dtype, reason = choose_dtype("cpu")
    model, tokenizer = load_causal_lm(torch.float32)
    render = lambda rows: [sft.render(tokenizer, x.prompt, x.answer) for x in rows]  # noqa: E731
    train, valid = render(persona.load("train", args.n)), render(persona.load("validation"))
    start = tuple(tokenizer(persona.INSTRUCTION).input_ids)
    print(f"{reason}; {args.n} dialogues, batch {args.batch}")
    for kind in args.only:
        text = start if kind in ("prompt", "prefix") else ()
        cells = []
        for lr in GRID[kind]:
            rung = Rung(kind, start=text, tokens=len(start))
            tuned = Tuned(model, EditedLlama(model, dtype), rung, 100)
            config = sft.SFTConfig(lr=lr, epochs=1, batch_size=args.batch, seed=100)
            history = fit(tuned, train, config)
            loss = sum(score(tuned.engine, valid)) / len(valid)
            cells.append(f"{lr:g}: {loss:.3f} ({history.seconds:.0f} s)")
            tuned.close()
        print(f"| {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
