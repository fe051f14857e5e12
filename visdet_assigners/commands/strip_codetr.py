"""The command ``strip-codetr``; `visdet_assigners.commands.parsers` says what it does."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch

from visdet_assigners.codetr import strip_auxiliary, strip_config
from visdet_assigners.commands import parsers
from visdet_assigners.commands.config import read_config
from visdet_assigners.commands.errors import user_errors
from visdet_assigners.errors import UserError
from visdet_assigners.training.checkpoints import write_whole
from visdet_assigners.training.running import load_checkpoint


def write(path: Path, content: bytes) -> None:
    """Save a file whole or not at all; a folder that can't be written to is the user's mistake."""
    try:
        write_whole(path, content)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}); give --out in a folder to write to") from error


def main(argv: Sequence[str] | None = None) -> None:
    """Strip a checkpoint and, on demand, a config."""
    args = parsers.strip_codetr().parse_args(argv)
    with user_errors():
        checkpoint = load_checkpoint(args.checkpoint)
        state = checkpoint.get("state_dict", checkpoint)
        stripped = strip_auxiliary(checkpoint)
        left = stripped.get("state_dict", stripped)
        if len(left) == len(state):
            raise UserError(f"{args.checkpoint} has no auxiliary modules; was it trained with Co-DETR?")
        source = Path(args.checkpoint)
        out = Path(args.out) if args.out else source.with_name(f"{source.stem}_plain{source.suffix}")
        buffer = io.BytesIO()
        torch.save(stripped, buffer)
        write(out, buffer.getvalue())
        print(f"{out}: {len(left)} of {len(state)} tensors, {count(left):,} of {count(state):,} numbers")
        if args.config:
            cfg = read_config(args.config)
            try:
                cfg.model = strip_config(cfg.model)
            except TypeError as error:
                raise UserError(f"{args.config}: {error}") from error
            config = out.with_name(f"{Path(args.config).stem}_plain.py")
            write(config, cfg.pretty_text.encode())
            print(config)


def count(state) -> int:
    """How many numbers the tensors of a state dictionary hold."""
    return sum(value.numel() for value in state.values() if isinstance(value, torch.Tensor))
