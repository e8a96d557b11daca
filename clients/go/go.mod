module aetherless.example/client

go 1.19
