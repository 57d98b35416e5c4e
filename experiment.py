"""What the options describe: device, tasks, networks, regularizer, training, groups of seeds.

train_args.py has the options; what they stand for is built here, for a run, for its evaluation and
for a dry run alike.
"""

import os
import warnings
from argparse import Namespace
from collections.abc import Sequence
from math import ceil, prod

import torch
from hypnettorch.hnets import HyperNetInterface
from hypnettorch.mnets import MainNetInterface

from hypercl import memory, networks
from hypercl.heads import Heads, head_of_each_task, one_head
from hypercl.hypernet import Hypernet, from_module
from hypercl.members import Params, stack_members
from hypercl.precision import forbid_tf32
from hypercl.regularizer import Checkpoint, take_checkpoint
from hypercl.seeding import derive_seed
from hypercl.tasks import Split, Task, permuted_mnist, split_cifar, split_mnist, with_heads
from train import Training


def pick_device(args: Namespace) -> torch.device:
    """The GPU where there is one and it is wanted, else the CPU; sets torch's global switches."""
    if args.deterministic_run:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it once
        torch.use_deterministic_algorithms(True)
    forbid_tf32()
    device = torch.device("cuda" if not args.no_cuda and torch.cuda.is_available() else "cpu")
    if args.tf32 and device.type != "cuda":
        warnings.warn("--tf32 has no effect on a CPU", stacklevel=2)
    return device


def build_tasks(args: Namespace, device: torch.device) -> list[Task]:
    """The sequence of tasks, on the device."""
    common = {
        "num_tasks": args.num_tasks,
        "skip_tasks": args.skip_tasks,
        "val_set_size": args.val_set_size,
        "num_train_samples": args.num_train_samples,
        "device": device,
    }
    classes = {"num_classes_per_task": args.num_classes_per_task}
    if args.cl_exp == "permmnist":
        tasks = permuted_mnist(args.data_dir, padding=args.padding, **common)
    elif args.cl_exp == "splitmnist":
        tasks = split_mnist(args.data_dir, **classes, **common)
    else:
        augmented = not args.no_augmentation
        tasks = split_cifar(args.data_dir, augmented=augmented, **classes, **common)
    return with_heads(tasks) if args.multi_head else tasks


def build_main_net(args: Namespace, task: Task) -> MainNetInterface:
    """The main network for the images and classes of a task."""
    return networks.build_main_net(
        args.net_type,
        task.in_shape,
        task.num_classes * (args.num_tasks if args.multi_head else 1),
        mlp_arch=args.mlp_arch,
        lenet_type=args.lenet_type,
        resnet_block_depth=args.resnet_block_depth,
        resnet_channel_sizes=args.resnet_channel_sizes,
        wrn_block_depth=args.wrn_block_depth,
        wrn_widening_factor=args.wrn_widening_factor,
        wrn_use_fc_bias=args.wrn_use_fc_bias,
        net_act=args.net_act,
        bias=not args.no_bias,
        dropout_rate=args.dropout_rate,
        batchnorm=args.batchnorm,
        running_stats=not args.bn_no_running_stats,
    )  # without weights, and with batch normalization's counters on the CPU, where they are read


def build_hypernet(args: Namespace, mnet: MainNetInterface, seed: int) -> HyperNetInterface:
    """hypnettorch's module of the hypernetwork, freshly initialized from a seed, on the CPU."""
    with torch.random.fork_rng(devices=[]):  # hypnettorch initializes from the global generator
        torch.manual_seed(derive_seed(seed, "initialization"))
        module = networks.build_hypernet(
            args.hnet_type,
            mnet.param_shapes,
            args.num_tasks,
            hmlp_arch=args.hmlp_arch,
            cond_emb_size=args.cond_emb_size,
            chunk_size=chunk_size(args, mnet),
            chunk_emb_size=args.chunk_emb_size,
            cond_chunk_embs=args.use_cond_chunk_embs,
            activation=args.hnet_net_act,
            bias=not args.hnet_no_bias,
            dropout_rate=args.hnet_dropout_rate,
        )
        networks.initialize_hypernet(
            module,
            mnet,
            scheme=args.hnet_init,
            std_task_embs=args.std_normal_temb,
            std_chunk_embs=args.std_normal_emb,
            hyperfan=args.hyper_fan_init,
        )
    return module


def chunk_size(args: Namespace, mnet: MainNetInterface) -> int:
    """The one given, or the one that ``--compression`` asks for."""
    if args.compression == -1:
        return args.chmlp_chunk_size
    return networks.chunk_size_for(
        args.compression,
        mnet.num_params,
        args.num_tasks,
        hmlp_arch=args.hmlp_arch,
        cond_emb_size=args.cond_emb_size,
        chunk_emb_size=args.chunk_emb_size,
        cond_chunk_embs=args.use_cond_chunk_embs,
        bias=not args.hnet_no_bias,
    )


def heads_of(args: Namespace, mnet: MainNetInterface, tasks: Sequence[Task]) -> Heads:
    """Which generated weights are regularized for which task."""
    if not args.multi_head or args.hnet_reg_all_heads:
        return one_head(mnet.param_shapes)
    outputs = [range(task.outputs.start, task.outputs.stop) for task in tasks]
    return head_of_each_task(mnet.param_shapes, outputs)


def as_function(
    args: Namespace, module: HyperNetInterface, device: torch.device | str
) -> tuple[Hypernet, Params]:
    """The hypernetwork as a pure function, and its parameters on the device."""
    hnet, params = from_module(
        module, activation=args.hnet_net_act, dropout_rate=args.hnet_dropout_rate
    )
    return hnet, {name: value.to(device) for name, value in params.items()}


def init_members(
    args: Namespace, mnet: MainNetInterface, seeds: Sequence[int], device: torch.device
) -> tuple[Hypernet, Params]:
    """Freshly initialized hypernetworks of several seeds: parameters [members, …] each."""
    made = [as_function(args, build_hypernet(args, mnet, seed), device) for seed in seeds]
    return made[0][0], stack_members([params for _, params in made])


def splits_to_test(args: Namespace, tasks: Sequence[Task]) -> list[Split]:
    """What the accuracies on these tasks are measured on."""
    return [task.validation if args.test_with_val_set else task.test for task in tasks]


def checkpoint_before(
    args: Namespace,
    task_id: int,
    hnet: Hypernet,
    params: Params,
    mnet: MainNetInterface,
    tasks: Sequence[Task],
) -> Checkpoint | None:
    """What the regularizer remembers before a task is learned; None where there is none."""
    if args.beta == 0:
        return None
    return take_checkpoint(
        hnet,
        params,
        task_id,
        subset_size=args.hnet_reg_batch_size,
        store_targets=not args.calc_hnet_reg_targets_online,
        heads=heads_of(args, mnet, tasks),
    )


def split_seeds(
    args: Namespace,
    seeds: Sequence[int],
    mnet: MainNetInterface,
    module: HyperNetInterface,
    tasks: Sequence[Task],
    device: torch.device,
) -> list[list[int]]:
    """The groups of seeds that are trained together."""
    most = networks.most_together(mnet, device)
    if len(seeds) == 1 or most == 1:
        return [[seed] for seed in seeds]
    sizes = member_and_free_bytes(args, mnet, module, tasks, device)
    return [list(group) for group in memory.split_into_groups(seeds, *sizes, most)]


def member_and_free_bytes(
    args: Namespace,
    mnet: MainNetInterface,
    module: HyperNetInterface,
    tasks: Sequence[Task],
    device: torch.device,
) -> tuple[int, int]:
    """What one more seed takes of the device's memory, and what is free."""
    hnet, params = as_function(args, module, "cpu")
    per_member = memory.estimate_member(
        hnet,
        params,
        mnet,
        num_tasks=args.num_tasks,
        subset_size=args.hnet_reg_batch_size,
        store_targets=not args.calc_hnet_reg_targets_online,
        heads=heads_of(args, mnet, tasks),
        num_inputs=prod(tasks[0].in_shape),
        batch_size=max(args.batch_size, args.val_batch_size),
        num_steps=training(args, [args.random_seed], len(tasks[0].train.labels)).num_steps,
        lookahead=args.lookahead,
    )
    return per_member, memory.available_bytes(device)


def training(args: Namespace, seeds: Sequence[int], num_samples: int) -> Training:
    """How a task with so many training samples is learned by these seeds."""
    epoch = ceil(num_samples / args.batch_size)
    return Training(
        num_steps=args.n_iter if args.epochs == -1 else args.epochs * epoch,
        batch_size=args.batch_size,
        task_weight=num_samples if args.task_loss == "total" else 1,
        beta=args.beta,
        reg_batch_size=args.hnet_reg_batch_size,
        lr=args.lr,
        weight_decay=args.weight_decay,
        optimizer="sgd" if args.use_sgd else "rmsprop" if args.use_rmsprop else "adam",
        adam_beta1=args.adam_beta1,
        momentum=args.momentum,
        clip_grad_value=args.clip_grad_value,
        clip_grad_norm=args.clip_grad_norm,
        freeze_prev_embs=args.freeze_prev_embs,
        lookahead=args.lookahead,
        steps_per_epoch=epoch,
        plateau_lr_scheduler=args.plateau_lr_scheduler,
        lambda_lr_scheduler=args.lambda_lr_scheduler,
        val_iter=args.val_iter,
        val_batch_size=args.val_batch_size,
        seeds=seeds,
        amp=args.amp,
        tf32=args.tf32,
    )
