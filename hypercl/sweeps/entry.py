"""The door of a worker: functions that travel whole, so that it need not find this package yet.

They import what they use inside, and name nothing of this package outside.
"""


def do_job(root, folder, session, argvs, until):
    """Do a job in the folder in which the sweep was started, with the code that started it.

    Args:
        root: The folder that has the package.
        session: Of the driver that asks.
        argvs, until: As hypercl.sweeps.work.Job has them.

    Raises:
        OSError: This machine has no such folder.
    """
    import os
    import sys

    if root not in sys.path:
        sys.path.insert(0, root)
    os.chdir(folder)
    from hypercl.sweeps.work import Job, work_for

    return work_for(session, Job(argvs, until))


def points_together(root, folder, argv):
    """How many points like one are learned in one step, on this machine."""
    import os
    import sys

    if root not in sys.path:
        sys.path.insert(0, root)
    os.chdir(folder)
    from hypercl.sweeps.work import points_together

    return points_together(argv)


def leave(root, session):
    """Have the point that is learned saved and left, and no other begun for this driver."""
    import sys

    if root not in sys.path:
        sys.path.insert(0, root)
    from hypercl.sweeps.work import stop_for

    stop_for(session)
