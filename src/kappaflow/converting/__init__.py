"""Trained coupling flows of other libraries as flows of ours. Nothing here imports one of them.

plan       what a flow will be made of, before anything is made
steps      what a network consists of
layers     the layers of a flow, each converted or refused with its reason
networks   a conditioner network, read, and asked whether that is all
matrices   linear maps in factored form
levels     flows of images on several scales
zuko, nflows, normflows, freia    one library each
fold       scales and shifts between couplings, taken into their networks
assemble   bijections and stacks from a plan
convert    `convert`
"""

from kappaflow.converting.convert import convert

__all__ = ["convert"]
