"""The hypernetwork with its output regularizer (von Oswald et al., arXiv 1906.00695).

reference.py has the method in plain torch, output_regularizer.py the same as it is run.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from hypercl.machine import FLOAT
from hypercl.methods.base import Method, MethodEntry, Setting
from hypercl.ranges import limit, non_negative, one_of, option, switch
from hypercl.registry import Part

_OF_THE_REGULARIZER = (
    "calc_hnet_reg_targets_online",
    "hnet_reg_all_heads",
    "hnet_reg_batch_size",
    "lookahead",
    "lookahead_eps",
)


@dataclass(frozen=True)
class Hnet(MethodEntry):
    scenarios: ClassVar = (1,)
    network_by_task: ClassVar = True
    # fmt: off
    beta: float = option(0.01, non_negative, "hnet: strength of the regularizer", member=True)
    calc_hnet_reg_targets_online: bool = option(False, switch, "where the regularizer compares weights with targets, recompute these at each step instead of storing them")
    hnet_reg_batch_size: int | None = option(None, limit, "regularize at most N random earlier tasks per step; 0 or less: all")
    hnet_reg_all_heads: bool = option(False, switch, "with --multi_head, regularize of an earlier task the outputs of the others too")
    freeze_prev_embs: bool = option(False, switch, "train the embeddings of the current task alone")
    lookahead: bool = option(False, switch, "regularize at the parameters that a step of Adam on the task loss alone would lead to, as in equation 2 of the paper")
    lookahead_eps: str = option("corrected", one_of("corrected", "uncorrected"), "with --lookahead, where Adam's eps is added: to the corrected root of the mean square, as Adam is written today, or to the uncorrected one, as in the paper's code, so that it counts more in a task's first steps")
    # fmt: on

    def problems(self, options):
        yield from super().problems(options)
        if self.hnet_reg_all_heads and not options.task.has_heads:
            yield (
                "--hnet_reg_all_heads concerns outputs of other tasks, and there are none: "
                "add --multi_head, or leave it out"
            )
        if options.train.keep_optimizer:
            yield (
                f"--keep_optimizer cannot be used with --method={self.name}, with which other "
                "embeddings learn in each task: leave it out"
            )
        if self.lookahead and (options.train.use_sgd or options.train.use_rmsprop):
            yield (
                "--lookahead looks at a step of Adam: leave it out, or leave out --use_sgd and "
                "--use_rmsprop"
            )
        if self.lookahead_eps == "uncorrected" and options.train.weight_decay:
            yield (
                f"--weight_decay={options.train.weight_decay:g} cannot be used with "
                "--lookahead_eps=uncorrected, which looks at a step without it: leave one out"
            )
        if options.run.continue_from is not None and options.hypernet.compression is not None:
            yield (
                f"--compression={options.hypernet.compression:g} chooses the chunk size by the "
                "number of tasks, which --continue_from changes: train all tasks from the start, "
                "or begin with --chmlp_chunk_size"
            )
        yield from problems_of_hypernet(options.hypernet)

    def unread(self, options):
        unread: dict[str, str] = {}
        if options.hypernet.hnet_type == "hmlp":
            remark = "goes with --hnet_type=chunked_hmlp: leave it out, or take that"
            unread |= dict.fromkeys(
                ("chmlp_chunk_size", "chunk_emb_size", "std_normal_emb"), remark
            )
        if options.hypernet.compression is not None:
            unread["chmlp_chunk_size"] = "is chosen by --compression: leave one out"
        if not options.hypernet.hmlp_arch:
            remark = "concerns hidden layers, and --hmlp_arch= has none: leave one out"
            unread |= dict.fromkeys(("hnet_net_act", "hnet_dropout_rate"), remark)
        if options.hypernet.cond_emb_size == 0:
            remark = "concerns task embeddings, and --cond_emb_size=0 has none: leave one out"
            unread["std_normal_temb"] = remark
        if not self.lookahead:
            unread["lookahead_eps"] = "goes with --lookahead: give that too, or leave it out"
        if self.beta == 0:
            remark = "concerns the regularizer, and --beta=0 takes it away: leave one out"
            unread |= dict.fromkeys(_OF_THE_REGULARIZER, remark)
        return unread

    def takes(self, options):
        yield from super().takes(options)
        # Parameters, gradients, and Adam's two means.
        for number, what, names in sizes_of_hypernet(options):
            yield Part(4 * FLOAT * number, what, names)

    def build(self, setting: Setting) -> Method:
        from hypercl.methods.hnet.output_regularizer import OutputRegularizer

        return OutputRegularizer(self, setting)


def problems_of_hypernet(hypernet):
    """What is wrong across the options of the hypernetwork."""
    if hypernet.hyper_fan_init and (
        hypernet.hnet_init != "default" or hypernet.std_normal_emb is not None
    ):
        yield (
            "--hyper_fan_init initializes the layers and the chunk embeddings itself: leave out "
            "--hnet_init and --std_normal_emb"
        )
    if hypernet.use_cond_chunk_embs and hypernet.hnet_type == "hmlp":
        yield (
            "--use_cond_chunk_embs cannot be used with --hnet_type=hmlp, which has no chunks: "
            "leave it out or take --hnet_type=chunked_hmlp"
        )
    if hypernet.compression is not None and hypernet.hnet_type == "hmlp":
        yield (
            f"--compression={hypernet.compression:g} chooses a chunk size, and --hnet_type=hmlp "
            "has no chunks: leave it out or take --hnet_type=chunked_hmlp"
        )
    if hypernet.cond_emb_size == 0 and not hypernet.use_cond_chunk_embs:
        yield (
            "--cond_emb_size=0 leaves nothing that tells the tasks apart: give a size, or add "
            "--use_cond_chunk_embs"
        )


def sizes_of_hypernet(options):
    """Numbers in parts of the hypernetwork, at least: how many, of what, by which options."""
    hypernet, tasks = options.hypernet, options.task.num_tasks or 1
    chunked = hypernet.hnet_type == "chunked_hmlp"
    width = hypernet.cond_emb_size + (hypernet.chunk_emb_size if chunked else 0)
    widths = (width, *hypernet.hmlp_arch)
    embedding_sizes = ("cond_emb_size", "chunk_emb_size") if chunked else ("cond_emb_size",)
    yield (
        tasks * hypernet.cond_emb_size,
        "the embeddings of the tasks",
        ("num_tasks", "cond_emb_size"),
    )
    hidden = sum(a * b for a, b in pairwise(widths))
    yield hidden, "the hypernetwork's hidden layers", ("hmlp_arch", *embedding_sizes)
    if chunked and hypernet.compression is None:
        number, what = widths[-1] * hypernet.chmlp_chunk_size, "the hypernetwork's last layer"
        yield number, what, ("chmlp_chunk_size", "hmlp_arch")
    if not chunked and (shape := options.task.kind.image_shape) is not None:
        weights, names = options.main_net.kind.least_weights(shape)
        yield widths[-1] * weights, "the hypernetwork's last layer", ("hmlp_arch", *names)


ENTRY = Hnet
