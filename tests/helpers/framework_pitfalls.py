"""Scripts of what goes wrong in several processes, as `examples/loops.md` says, and of its remedies."""

from __future__ import annotations

from framework_scripts import scripts

SCRIPTS = scripts()
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
        if weights is None:
            return F.cross_entropy(self.network(images), labels)
        return self.mrm(self.network.encoder(change_colours(images)), self.network.decoder, labels, weights)

torch.manual_seed(0)  # the plain loop's weights
student = DistributedDataParallel(Separate(), find_unused_parameters=FIND_UNUSED)
optimizer = torch.optim.AdamW(student.module.groups(), lr=6e-5)
for source, labels, *target in batches(dist.get_rank(), 2):
    optimizer.zero_grad()
    student(source, labels).backward()
    student(*target).backward()
    optimizer.step()
"""
)
EVERY_SECOND = (
    DDP
    + """
student = DistributedDataParallel(student, find_unused_parameters=FIND_UNUSED)
optimizer = torch.optim.AdamW(student.module.groups(), lr=6e-5)
for step, batch in enumerate(batches(dist.get_rank(), 2)):
    optimizer.zero_grad()
    student(*batch, mrm_factor=2 if step % 2 else 0).backward()
    optimizer.step()
"""
)
PITFALLS = {
    "parts called behind DDP's back": DDP
    + """
ddp = DistributedDataParallel(student.network)
for source, labels, *target in batches(dist.get_rank(), 2):
    student.mrm(ddp.module.encoder(target[0]), ddp.module.decoder, *target[1:]).backward()
    optimizer.step()
""",
    "a level that the decoder ignores": DDP
    + """
class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.stage = nn.Conv2d(3, 16, 5, 4, 2), nn.Conv2d(16, 32, 3, 2, 1)

    def forward(self, images):
        fine = self.stem(images).relu()
        return [fine, self.stage(fine).relu()]

class Decoder(nn.Conv2d):
    def forward(self, feats):
        return F.interpolate(super().forward(feats[1]), scale_factor=8)

student.network.encoder, student.network.decoder = Encoder(), Decoder(32, 5, 1)
student.mrm = MRM([16, 32], embed_dim=64, num_heads=4)
student = DistributedDataParallel(student)
"""
    + LOOP,
    "a backward for each loss": "FIND_UNUSED = False\n" + SEPARATE,
    "MRM in every second step": "FIND_UNUSED = False\n" + EVERY_SECOND,
    "MRM in every second step, all parameters looked for": "FIND_UNUSED = True\n" + EVERY_SECOND,
    "processes that start from other weights": """
import os

torch.manual_seed(int(os.environ["RANK"]))
student = Student()
"""
    + SCRIPTS["FSDP2"],
    "methods instead of modules under FSDP2": """
class Methods(Student):
    def forward(self, source, labels, target, *rest):
        return self.mrm(self.network.encoder(target), self.network.decoder.forward, *rest)

student = Methods()
"""
    + SCRIPTS["FSDP2"],
    "a manual_backward for each loss": SCRIPTS["Lightning 2"]
    .replace('devices="auto", strategy="auto"', 'devices=2, strategy="ddp"')
    .replace(
        "self.manual_backward(self.student(*batch))",
        """source, labels, *target = batch
        network = self.student.network
        feats = network.encoder(change_colours(target[0]))
        self.manual_backward(F.cross_entropy(network(source), labels))
        self.manual_backward(self.student.mrm(feats, network.decoder, *target[1:]))""",
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
student = DistributedDataParallel(student)
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
