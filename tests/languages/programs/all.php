<?php // PHP: processes, pipes, local sockets, streams, generators.
$child = proc_open(['tr', 'a-z', 'A-Z'], [['pipe', 'r'], ['pipe', 'w']], $pipes);
fwrite($pipes[0], "opened\n"); fclose($pipes[0]); echo stream_get_contents($pipes[1]); echo proc_close($child), "\n";
echo shell_exec('echo shell');
[$ours, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
fwrite($theirs, "paired\n"); $read = [$ours]; $none = null;
echo stream_select($read, $none, $none, 5), ' ', fgets($ours);
$server = stream_socket_server('unix:///tmp/php'); $client = stream_socket_client('unix:///tmp/php');
fwrite($client, "local\n"); echo fgets(stream_socket_accept($server, 5));
if (function_exists('pcntl_fork')) { $pid = pcntl_fork(); if (!$pid) exit(3); pcntl_waitpid($pid, $status); echo pcntl_wexitstatus($status), "\n"; }
$file = tmpfile(); flock($file, LOCK_EX); fwrite($file, random_bytes(999)); fflush($file); fsync($file); echo fstat($file)['size'], "\n";
mkdir('a/b', 0755, true); copy(__FILE__, 'a/b/copy'); rename('a/b/copy', 'a/moved'); echo implode(' ', scandir('a')), "\n";
function counted() { for ($n = 1; $n < 4; $n++) yield $n; }
echo json_encode(iterator_to_array(counted())), ' ', hash('sha256', 'abc') === hash_file('sha256', 'data://,abc') ? 'same' : 'other', "\n";
$fiber = new Fiber(fn ($n) => Fiber::suspend($n + 1) * 2); echo $fiber->start(1), ' '; $fiber->resume(21); echo $fiber->getReturn(), "\n";
