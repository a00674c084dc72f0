"""Processes forked from one that has imported everything before, which takes seconds each time."""

import multiprocessing
import os
import sys
import time

CONTEXT = multiprocessing.get_context("forkserver")
# Not matplotlib, which asks for its backend once.
CONTEXT.set_forkserver_preload(["fopro_lab.training", "fopro_lab.probing", "ipykernel.kernelapp"])


def start_kernel(command: list[str], *, env: dict[str, str], cwd: str = "", **_: object):
    """Start a kernel, as `jupyter_client` starts a process."""
    kernel = CONTEXT.Process(target=_run_kernel, args=(command, env, cwd or os.getcwd()))
    kernel.start()
    while os.getpgid(kernel.pid) != kernel.pid:  # signals go to its group, once it has one
        time.sleep(0.01)
    kernel.poll, kernel.wait = lambda: kernel.exitcode, kernel.join
    kernel.send_signal = lambda number: os.kill(kernel.pid, number)
    kernel.stdin = kernel.stdout = kernel.stderr = None
    return kernel


def _run_kernel(command: list[str], env: dict[str, str], cwd: str) -> None:
    os.setsid()
    _write_to(os.devnull)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance(argv=command[command.index("-f") :])


def start_command(words: list[str], log: str) -> multiprocessing.Process:
    """Start a command of `fopro` that writes to a file."""
    process = CONTEXT.Process(target=_run_command, args=(words, log, dict(os.environ)))
    process.start()
    return process


def _run_command(words: list[str], log: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)  # their server may be of another test
    _write_to(log)
    from fopro_lab import cli

    sys.argv = ["fopro", *words]
    cli.main()


def _write_to(path: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    for output in (1, 2):
        os.dup2(file, output)
