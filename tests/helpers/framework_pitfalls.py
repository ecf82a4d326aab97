"""Scripts of what goes wrong in several processes, as `examples/frameworks.md` says, and of its remedies."""

from __future__ import annotations

from framework_scripts import blocks

BLOCKS = blocks()
DDP = """
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
"""
LOOP = """
optimizer = torch.optim.AdamW(student.module.groups(), lr=6e-5)
for batch in batches(dist.get_rank(), 2):
    optimizer.zero_grad()
    student(*batch).backward()
    optimizer.step()
"""
SEPARATE = (
    DDP
    + """
class Separate(Student):
    def forward(self, images, labels, weights=None):
        feats, decoder = self.network["encoder"](images), self.network["decoder"]
        return F.cross_entropy(decoder(feats), labels) if weights is None else self.mrm(feats, decoder, labels, weights)

student = DistributedDataParallel(Separate(), find_unused_parameters=FIND_UNUSED)
optimizer = torch.optim.AdamW(student.module.groups(), lr=6e-5)
for source, labels, *target in batches(dist.get_rank(), 2):
    optimizer.zero_grad()
    student(source, labels).backward()
    student(*target).backward()
    optimizer.step()
"""
)
EVERY_SECOND = BLOCKS["Every second step"].partition("student = ")[0] + (
    DDP
    + """
student = DistributedDataParallel(Sometimes(), find_unused_parameters=FIND_UNUSED)
optimizer = torch.optim.AdamW(student.module.groups(), lr=6e-5)
for step, batch in enumerate(batches(dist.get_rank(), 2)):
    optimizer.zero_grad()
    student(step % 2 == 1, *batch).backward()
    optimizer.step()
"""
)
PITFALLS = {
    "parts called behind DDP's back": DDP
    + """
student = Student()
ddp = DistributedDataParallel(student.network)
optimizer = torch.optim.AdamW(student.groups(), lr=6e-5)
for source, labels, *target in batches(dist.get_rank(), 2):
    student.mrm(ddp.module["encoder"](target[0]), ddp.module["decoder"], *target[1:]).backward()
    optimizer.step()
""",
    "a level that the decoder ignores": DDP
    + """
class CoarseDecoder(Decoder):
    def forward(self, feats):
        return super().forward([torch.zeros_like(feats[0]), feats[1]])

Decoder = CoarseDecoder
student = DistributedDataParallel(Student())
"""
    + LOOP,
    "a backward for each loss": "FIND_UNUSED = False\n" + SEPARATE,
    "MRM in every second step": "FIND_UNUSED = False\n" + EVERY_SECOND,
    "MRM in every second step, all parameters looked for": "FIND_UNUSED = True\n" + EVERY_SECOND,
    "processes that start from other weights": "import os\ntorch.manual_seed(int(os.environ['RANK']))\n"
    + BLOCKS["FSDP2"],
    "methods instead of modules under FSDP2": """
class Methods(Student):
    def forward(self, source, labels, target, *rest):
        encoder, decoder = self.network["encoder"], self.network["decoder"]
        return self.mrm(encoder(target), decoder.forward, *rest)

Student = Methods
"""
    + BLOCKS["FSDP2"],
    "a manual_backward for each loss": BLOCKS["Lightning 2"].replace(
        "self.manual_backward(self.student(*batch))",
        """source, labels, *target = batch
        encoder, decoder = self.student.network["encoder"], self.student.network["decoder"]
        self.manual_backward(F.cross_entropy(decoder(encoder(source)), labels))
        self.manual_backward(self.student.mrm(encoder(target[0]), decoder, *target[1:]))""",
    ),
}
REMEDIES = {
    "a backward for each loss": "FIND_UNUSED = True\n" + SEPARATE,
    "a backward for each loss, the first in no_sync": "FIND_UNUSED = False\n"
    + SEPARATE.replace(
        "    student(source, labels).backward()",
        "    with student.no_sync():\n        student(source, labels).backward()",
    ),
    "a manual_backward for each loss": PITFALLS["a manual_backward for each loss"].replace(
        '"ddp"', '"ddp_find_unused_parameters_true"'
    ),
    "accumulation": DDP
    + """
student = DistributedDataParallel(Student())
optimizer = torch.optim.AdamW(student.module.groups(), lr=6e-5)
for batch in batches(dist.get_rank(), 2):
    first, second = zip(*(t.split(1) for t in batch))
    optimizer.zero_grad()
    with student.no_sync():
        (student(*first) / 2).backward()
    (student(*second) / 2).backward()
    optimizer.step()
""",
}
