"""Kernels for augmentation, the first layers of image networks and updates of weights, compiled where they run.

`python -m cnn.native` compiles them. Nothing is compiled or loaded by an import. A process that trains says
`library.use(library.find())`; where no library was built for its machine, torch computes the same.
"""
