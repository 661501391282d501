"""How good is a set of weights: forge test patients, judge them through the production path, report with intervals.

Knows the archive's planes, the forgers and the analysis client. Must not know the network; every figure comes from
`verdict.json`.
"""
