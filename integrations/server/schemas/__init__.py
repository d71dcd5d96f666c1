"""What clients send and get, as typed models, of which the OpenAPI document is made."""
