"""Networks: the main network as a function of its weights, the hypernetwork that generates them.

main_net.py and hypernet.py are what the rest of the code knows; hypnettorch's classes, which
library.py imports, stand behind them. task_net.py is a main network with the weights for a task
inside, to be taken elsewhere. A new main network is a file in main_nets/: docs/extending.rst.
"""
