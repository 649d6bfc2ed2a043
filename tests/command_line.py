"""The `entracte` command's parser, for what documents and deployments say of it."""

import argparse

from entracte.cli.commands import COMMANDS, command_module
from entracte.cli.parser import Parser


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="entracte")
    commands = made.add_subparsers(required=True)
    for command in COMMANDS:
        command_module(command).add_parser(commands)
    return made


def flags(of: argparse.ArgumentParser) -> set[str]:
    """All flags of a command and of its subcommands."""
    found = set(of._option_string_actions)
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                found |= flags(each)
    return found
