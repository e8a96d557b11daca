# SPDX-License-Identifier: Apache-2.0
# The hello worker of workerd. The socket's address comes from the command line.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [(name = "hello", worker = .hello)],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "hello")],
);

const hello :Workerd.Worker = (
  serviceWorkerScript = embed "worker.js",
  compatibilityDate = "2025-01-01",
);
