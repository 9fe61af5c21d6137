"""Rigid bodies that fall, collide, hide and break."""
