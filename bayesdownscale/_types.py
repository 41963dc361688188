"""The array types of the package, named once (shapes are checked by jaxtyping in the tests)."""

from jaxtyping import Array, Float, Int, PRNGKeyArray

Field = Float[Array, "time variable lat lon"]
Scalar = Float[Array, ""]
Count = Int[Array, ""]
Key = PRNGKeyArray
