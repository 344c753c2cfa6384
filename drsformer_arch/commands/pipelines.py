"""`drsformer train` and `drsformer test`: BasicSR's pipelines."""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any

from drsformer_arch.commands.common import (
    EXIT_SOME_FAILED,
    add_command,
    add_imports,
    add_inference,
    announce,
    size_of,
)
from drsformer_arch.system.errors import EXIT_STOPPED, TrainingStopped, UserError

CPP_LOG_LEVEL = "TORCH_CPP_LOG_LEVEL"  # environment variable of torch
SUMMARIES = {
    "train": "train from an option file; results go to ./experiments (or to where the option file's experiment is)",
    "test": "test trained weights from an option file; results go to ./results",
}
EXAMPLES = {
    "train": """examples:
  drsformer options train/DRSformer/Rain200H > my.yml     # all recipes: drsformer options
  drsformer train -opt my.yml
  drsformer train -opt my.yml --auto_resume --force_yml train:total_iter=1000
""",
    "test": """examples:
  drsformer options test/DRSformer/Rain200H > my_test.yml     # all recipes: drsformer options
  drsformer test -opt my_test.yml --force_yml path:pretrain_network_g=deraining.pth --report results.html
""",
}


def add(commands: Any) -> None:
    """Declare both commands."""
    for name, summary in SUMMARIES.items():
        parser = add_command(
            commands, name, run, summary, EXAMPLES[name], debug="a few iterations with everything logged"
        )
        parser.add_argument("-opt", required=True, metavar="FILE", help="option file (YAML)")
        parser.add_argument("--launcher", choices=["none", "pytorch", "slurm"], default="none")
        parser.add_argument(
            "--force_yml",
            nargs="+",
            action="extend",
            default=[],
            metavar="KEY:KEY=VALUE",
            help="options that override the file's",
        )
        add_imports(parser)
        if name == "test":
            add_inference(parser)
            parser.add_argument("--report", type=Path, metavar="PAGE.html", help="write a page that shows all results")
        if name == "train":
            parser.add_argument("--auto_resume", action="store_true", help="go on from the newest training state")
            parser.add_argument("--check", action="store_true", help="check all, print the plan, start nothing")
            parser.add_argument(
                "--processes",
                metavar="N",
                help="start so many processes on this machine (auto: one per GPU), as scripts/train_distributed.sh",
            )


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    processes = 1
    if getattr(args, "processes", None) is not None:
        if not args.check:
            return _launch(args)
        processes = _job(args).world_size
    elif args.launcher != "none":
        from drsformer_arch.bridge.option_trials import check_launcher  # noqa: PLC0415

        check_launcher(args.launcher)
        processes = int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1")))
    from drsformer_arch.bridge import command, repairs  # noqa: PLC0415 - torch takes seconds; --help must not
    from drsformer_arch.bridge.option_checks import prepare  # noqa: PLC0415
    from drsformer_arch.options.run_sections import MODEL_TYPES  # noqa: PLC0415

    is_train, page = args.command == "train", getattr(args, "report", None)
    if is_train:
        args.opt = command.work_where_it_ran(args.opt)
    distributed = args.launcher != "none" or getattr(args, "processes", None) is not None
    asked = [f"val:{name}=true" for name in ("ensemble", "published_inference") if getattr(args, name, False)]
    options = prepare(
        args.opt,
        [*args.force_yml, *asked],
        imports=args.imports,
        is_train=is_train,
        distributed=distributed,
        processes=processes,
        resumes=getattr(args, "auto_resume", False),
        debug=args.debug,
        elsewhere=is_train and args.check,
    )
    if is_train and args.check:
        from drsformer_arch.bridge import training_check  # noqa: PLC0415

        training_check.check(options, args, processes)
        return 0
    if is_train and options["model_type"] in MODEL_TYPES:  # other models know no stop that saves
        signal.signal(signal.SIGINT, _request_stop)
        signal.signal(signal.SIGTERM, _request_stop)
    if page is not None:
        options["val"]["save_img"] = True
    if is_train:
        command.lock_experiment(options["name"], distributed=distributed)
    code = 0
    try:
        command.start(options, args, root=os.getcwd(), is_train=is_train)
    except TrainingStopped as stopped:
        if _is_first():
            print(f"Stopped after iteration {stopped.iteration}; its state is saved. Go on with --auto_resume.")
        code = EXIT_STOPPED
    repairs.disconnect_processes()
    if page is not None and options["rank"] == 0:
        from drsformer_arch.page.pipeline_page import write_test_page  # noqa: PLC0415 - loaded when asked for

        problems: list[str] = []
        write_test_page(options, page, problems.append)
        for problem in problems:
            print(f"error: {problem}", file=sys.stderr)
        code = EXIT_SOME_FAILED if problems else code
        announce(f"{page}: {size_of(page)}; open it in a browser", page)
    return code


def _launch(args: argparse.Namespace) -> int:
    """Start the processes of a training."""
    # Connections that end as another machine ends make torch print its stack, in the best of trainings. Read at import.
    level = os.environ.get(CPP_LOG_LEVEL)
    os.environ[CPP_LOG_LEVEL] = level or "FATAL"
    from drsformer_arch.bridge import launcher  # noqa: PLC0415 - loads torch

    os.environ[CPP_LOG_LEVEL] = level or "ERROR"  # of the processes
    return launcher.launch(args, _job(args))


def _job(args: argparse.Namespace) -> Any:
    """Work out what to start; see `launcher.job_of`."""
    from drsformer_arch.bridge import launcher  # noqa: PLC0415

    if args.launcher != "none":
        raise UserError("--processes starts processes, --launcher says who has started this one: give one of them")
    return launcher.job_of(args.processes, os.environ)


def _is_first() -> bool:
    """Tell whether this is the process of a job that speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def _request_stop(number: int, _frame: Any) -> None:
    from drsformer_arch.training.derain_model import stop_requested  # noqa: PLC0415 - loaded by now

    if stop_requested.is_set() and number == signal.SIGINT:
        raise KeyboardInterrupt
    said_already = stop_requested.is_set()
    stop_requested.set()
    name = signal.Signals(number).name
    again = " (Ctrl-C again: stop at once)" if number == signal.SIGINT else ""
    if _is_first() and not said_already:
        print(f"{name}: saving after this iteration, then stopping{again}", file=sys.stderr, flush=True)
