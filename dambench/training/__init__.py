"""What both sides of a comparison share:
the problem, preprocessing, augmentation, the policy, and the training of networks.
"""
