module aetherless.example/counter

go 1.19
