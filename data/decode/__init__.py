"""Payloads in, frames out: decoders, judged and kept in killable children."""
