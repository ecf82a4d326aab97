"""The rooms of the trainers. A room may import those above it in this list, never one below.

runtime       processes, random numbers
scenes        the embedded pair of domains
networks      encoders and decoders
settings      what can be set
data          from files to batches
selftraining  what a training step is made of
checkpoints   trained networks: reading, evaluating, predicting
training      a run from start to end
"""
