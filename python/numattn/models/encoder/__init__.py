"""BERT-family encoders: texts → vectors, and the attention maps behind them."""
