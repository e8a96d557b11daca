// SPDX-License-Identifier: Apache-2.0
// Ask HOST PORT over HTTP; print the status and the address that the socket says it talks to.
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.InetSocketAddress;
import java.net.Socket;

public class Client {
    public static void main(String[] arguments) throws Exception {
        try (Socket socket = new Socket()) {
            socket.connect(
                new InetSocketAddress(arguments[0], Integer.parseInt(arguments[1])), 10000);
            String request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            socket.getOutputStream().write(request.getBytes());
            BufferedReader reader =
                new BufferedReader(new InputStreamReader(socket.getInputStream()));
            String status = reader.readLine().split(" ")[1];
            System.out.println(status + " " + socket.getInetAddress().getHostAddress());
        }
    }
}
