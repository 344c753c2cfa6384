"""scripts/train_slurm.sh as users submit it, on two nodes: what Slurm does to a job costs it no saved iteration."""

import re

from tests.cluster.hosts import wait_until
from tests.cluster.slurm import DIED, KILL_WAIT

NODES = "--nodes=2"
SCRIPT = "scripts/train_slurm.sh"
STOPPED = re.compile(r"Stopped after iteration (\d+); its state is saved")
SOON = 90  # seconds for what takes a third of it on a busy machine


def stopped_at(training, *, times: int = 1) -> int:
    """Return the iteration that the last stop saved, and see that each stop is told in one line."""
    found = STOPPED.findall(training.log())
    assert len(found) == times, training.log()[-3000:]
    assert "Traceback" not in training.log()
    assert training.saved()[-1] == int(found[-1])
    return int(found[-1])


def test_a_time_limit_saves_and_queues_again(queue, training, fault, measured):
    small = training()
    with fault("time limit of a Slurm job"):
        # Slurm looks every half minute whether a limit is near.
        job = queue.submit(small.folder, NODES, "--time=2", "--signal=B:TERM@50", SCRIPT, "-opt", small.file)
        measured("first iteration after", small.wait_for_iteration(1))
        wait_until(lambda: "SIGTERM" in small.log(), SOON, small.log)
        measured("saved and queued again after", queue.wait_for(job, "PENDING", SOON))
        saved = stopped_at(small)
        small.end_after(3)
        queue.say("scontrol", "update", f"job={job}", "TimeLimit=60")  # a busy machine is slow
        measured("first iteration again after", small.wait_for_iteration(saved + 1))
        measured("done after", queue.wait_for(job, "COMPLETED", SOON))
        assert f", iter: {saved}.\n" in small.log()
        assert small.iterations() == list(range(1, saved + 4))  # each once
        assert queue.job(job)["Restarts"] == "1"
        small.assert_whole()


def test_a_second_job_of_one_name_is_refused_and_a_cancelled_one_is_over(queue, training, fault, measured):
    small = training()
    job = queue.submit(small.folder, NODES, "--cpus-per-task=8", SCRIPT, "-opt", small.file)
    small.wait_for_iteration(1)
    with fault("two Slurm jobs of one name"):
        second = queue.submit(small.folder, NODES, "--cpus-per-task=8", SCRIPT, "-opt", small.file)
        measured("second refused after", queue.wait_for(second, "FAILED", SOON))
        said = (small.folder / f"slurm-{second}.log").read_text()
        assert queue.job(second)["ExitCode"] == "2:0", said
        assert said.count("error: another training named small is running here; give this one another name") == 1, said
        assert "Traceback" not in said
        small.wait_for_iteration(small.iterations()[-1] + 3)
    with fault("scancel of a Slurm job"):
        queue.say("scancel", str(job))
        measured("cancelled and ended after", queue.wait_for(job, "CANCELLED", SOON))
        stopped_at(small)
        assert queue.job(job)["Restarts"] == "0"
        assert not queue.say("squeue", "-h")


def test_a_node_that_dies_ends_the_job_which_goes_on_when_it_is_back(queue, training, fault, measured):
    """As by a power cut: its connections are never closed, and what is there of the job would wait for ever."""
    small = training()
    small.options["logger"]["save_checkpoint_freq"] = 5
    small.write()
    job = queue.submit(small.folder, NODES, SCRIPT, "-opt", small.file)
    small.wait_for_iteration(12)
    with fault("node of a Slurm job that dies"):
        queue.die("n2")
        measured(
            f"ended (SlurmdTimeout={DIED}, KillWait={KILL_WAIT}) after",
            queue.wait_for(job, "PENDING", DIED + KILL_WAIT + SOON),
        )
        saved = small.saved()[-1]
        small.end_after(3)
        queue.begin("n2")
        measured("first iteration again after", small.wait_for_resume())
        measured("done after", queue.wait_for(job, "COMPLETED", SOON))
        assert f", iter: {saved}.\n" in small.log()
        small.assert_whole()


def test_an_array_of_option_files_is_preempted_and_goes_on(queue, training, fault, measured):
    """Both tasks on both nodes; the numbers of the last one are those of the array."""
    both = [training(name) for name in ("first", "other")]
    files = [each.file for each in both]
    array = queue.submit(both[0].folder, NODES, "--array=0-1", "--cpus-per-task=8", SCRIPT, "-opt", *files)
    for each in both:
        each.wait_for_iteration(2)
    with fault("preemption of Slurm jobs"):
        urgent = queue.urgent()
        measured("both saved and made room after", queue.wait_for(urgent, "RUNNING", SOON))
        saved = [stopped_at(each) for each in both]
        for each in both:
            each.end_after(2)
        queue.say("scancel", str(urgent))
        for task, each in enumerate(both):
            measured("goes on after", each.wait_for_iteration(saved[task] + 1))
            queue.wait_for(f"{array}_{task}", "COMPLETED", SOON)
            each.assert_whole()


def test_a_mistake_is_said_once_and_not_repeated(queue, training):
    small = training()
    small.options["train"]["total_iterations"] = 3
    small.write()
    job = queue.submit(small.folder, NODES, SCRIPT, "-opt", small.file)
    queue.wait_for(job, "FAILED", SOON)
    assert queue.job(job)["ExitCode"] == "2:0"
    assert queue.job(job)["Restarts"] == "0"
    said = (small.folder / f"slurm-{job}.log").read_text()
    assert len(re.findall("^error: .*total_iterations", said, re.MULTILINE)) == 1, said
    assert "Traceback" not in said
