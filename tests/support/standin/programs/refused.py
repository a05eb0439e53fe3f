"""Asks for an entity of others."""

import wandb

try:
    wandb.init(project="faces", entity="stranger")
except wandb.errors.Error as error:
    print("REFUSED", error)
