"""The services of the contract, one module each; the guard stands in front of them."""
