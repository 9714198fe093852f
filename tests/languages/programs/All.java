// Java: threads, processes, watched files, mapped files, local sockets.
import java.net.*;
import java.nio.*;
import java.nio.channels.*;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;

class All {
    public static void main(String[] args) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(4);
        int sum = 0;
        for (Future<Integer> one : pool.invokeAll(IntStream.range(0, 9).mapToObj(n -> (Callable<Integer>) () -> n * n).collect(Collectors.toList())))
            sum += one.get();
        pool.shutdown();
        System.out.println(sum + " " + IntStream.range(0, 1000).parallel().sum());

        Process tr = new ProcessBuilder("tr", "a-z", "A-Z").start();
        try (var in = tr.getOutputStream()) { in.write("built".getBytes()); }
        System.out.println(new String(tr.getInputStream().readAllBytes()) + " " + tr.waitFor() + " " + new ProcessBuilder("sh", "-c", "exit 3").start().waitFor());

        Path folder = Files.createDirectory(Path.of("folder"));
        try (WatchService watch = FileSystems.getDefault().newWatchService()) {
            folder.register(watch, StandardWatchEventKinds.ENTRY_CREATE);
            Files.writeString(folder.resolve("new"), "x");
            System.out.println(watch.poll(20, TimeUnit.SECONDS).pollEvents().get(0).context());
        }
        try (FileChannel file = FileChannel.open(Path.of("map"), StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE); FileLock lock = file.lock()) {
            MappedByteBuffer map = file.map(FileChannel.MapMode.READ_WRITE, 0, 8192);
            map.putInt(4096, 42);
            map.force();
            file.force(true);
            System.out.println(map.getInt(4096) + " " + lock.isValid());
        }
        UnixDomainSocketAddress address = UnixDomainSocketAddress.of("/tmp/java");
        try (ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
            server.bind(address);
            Thread client = new Thread(() -> {
                try (SocketChannel socket = SocketChannel.open(address)) { socket.write(ByteBuffer.wrap("local".getBytes())); }
                catch (java.io.IOException error) { error.printStackTrace(); }
            });
            client.start();
            ByteBuffer room = ByteBuffer.allocate(9);
            try (SocketChannel peer = server.accept()) { while (peer.read(room) >= 0) { } }
            client.join();
            System.out.println(new String(room.array(), 0, room.position()));
        }
        try (DatagramSocket datagrams = new DatagramSocket(); ServerSocket listening = new ServerSocket(0)) {
            System.out.println((datagrams.getLocalPort() > 0) + " " + (listening.getLocalPort() > 0));
        }
    }
}
