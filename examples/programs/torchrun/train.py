"""A program for torchrun, which the job's command is: Quarterdeck starts one process."""

import quarterdeck
import torch
import torch.distributed as dist


def main() -> None:
    dist.init_process_group("gloo")
    total = torch.tensor([float(dist.get_rank() + 1)])
    dist.all_reduce(total)
    print(
        f"rank {dist.get_rank()} of {dist.get_world_size()}: total {total.item():.0f}", flush=True
    )
    quarterdeck.log(share=dist.get_rank() + 1)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
