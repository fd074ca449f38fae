"""What training costs: memory and operations of a step, speed of the loader and of the step.

Start at `__main__`; each module is one of its tools.
"""
