// SPDX-License-Identifier: Apache-2.0

import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.security.SecureRandom;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicLong;

/** The JDK's own HTTP server with a pool of threads, remembering something in memory. */
public final class Server {
    private static final int THREADS = 8;

    private Server() {}

    public static void main(String[] arguments) throws IOException {
        String token = Long.toHexString(new SecureRandom().nextLong());
        String edition = System.getenv().getOrDefault("EDITION", "1");
        long pid = ProcessHandle.current().pid();
        AtomicLong count = new AtomicLong();
        int port = Integer.parseInt(System.getenv("PORT"));
        HttpServer server = HttpServer.create(new InetSocketAddress(port), 0);
        server.setExecutor(Executors.newFixedThreadPool(THREADS));
        server.createContext(
                "/",
                exchange -> {
                    String memory =
                            String.format(
                                    "{\"token\":\"%s\",\"count\":%d,\"pid\":%d,\"edition\":\"%s\"}",
                                    token, count.incrementAndGet(), pid, edition);
                    byte[] body = memory.getBytes();
                    exchange.getResponseHeaders().set("Content-Type", "application/json");
                    exchange.sendResponseHeaders(200, body.length);
                    exchange.getResponseBody().write(body);
                    exchange.close();
                });
        server.start();
    }
}
