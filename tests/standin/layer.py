"""The block layer without a stand-in around it."""

from __future__ import annotations

from memd.standin.block.bitmaps import Bitmaps
from memd.standin.block.block_jobs import BlockJobs
from memd.standin.block.blocks import Blocks
from memd.standin.block.images import Images
from memd.standin.block.jobs import Jobs
from memd.standin.block.transactions import Transactions


class Layer:
    """Commands about block nodes, by what has them."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self.jobs = Jobs(blocks)
        self.images = Images(blocks, self.jobs, None)
        self.block_jobs = BlockJobs(blocks, self.images, self.jobs)
        self.transactions = Transactions(blocks, self.images, self.block_jobs, Bitmaps(blocks))
