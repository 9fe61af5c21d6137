"""What a budget buys by a study's law: size, tokens, loss, recipe, layout, money."""
