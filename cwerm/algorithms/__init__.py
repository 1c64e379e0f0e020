"""The maths: NumPy, torch, timm and FAISS only, plain arguments; knows nothing of Ray or storage."""
