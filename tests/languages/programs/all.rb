# Ruby: threads, ractors, time-outs, forks, pipes, sockets.
require 'fileutils'; require 'io/console'; require 'json'; require 'open3'; require 'socket'; require 'tempfile'; require 'timeout'; require 'zlib'
Warning[:experimental] = false
puts Ractor.new(20) { |n| n + Ractor.receive }.tap { |ractor| ractor.send(22) }.take
queue = Queue.new
taker = Thread.new { 3.times.sum { queue.pop } }
3.times { |n| queue << n }
puts taker.value, Array.new(4) { |n| Thread.new { n * n } }.sum(&:value)
begin Timeout.timeout(0.05) { sleep } rescue puts $!.class end
read, write = IO.pipe
Process.wait(fork { write.puts 'forked'; exit!(3) })
puts read.gets, $?.exitstatus, `echo shell`, Open3.capture2('tr a-z A-Z', stdin_data: 'open3')[0]
server = UNIXServer.new('/tmp/ruby')
client = Thread.new { UNIXSocket.open('/tmp/ruby') { |socket| socket.puts 'local' } }
puts server.accept.gets; client.join
Tempfile.create { |file| file.flock(File::LOCK_EX); file.write(Zlib.gzip('x' * 9999)); file.fsync; puts file.size < 99 }
trap('USR1') { puts 'signal' }; Process.kill('USR1', $$); sleep 0.05
puts Fiber.new { Fiber.yield 1; 2 }.then { |fiber| [fiber.resume, fiber.resume].to_json }
