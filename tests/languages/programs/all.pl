# Perl: threads, forks, pipes, sockets, locks.
use strict; use warnings; use threads; use threads::shared; use Thread::Queue;
use Fcntl qw(:flock SEEK_SET); use IO::Select; use IO::Handle; use Socket; use POSIX (); use Time::HiRes ();
use File::Temp; use File::Copy; use IPC::Open3;
$| = 1;
my $sum :shared = 0;
$_->join for map { my $n = $_; threads->create(sub { lock($sum); $sum += $n }) } 1 .. 4;
my $queue = Thread::Queue->new;
my $taker = threads->create(sub { my $n = 0; while (defined(my $x = $queue->dequeue)) { $n += $x } $n });
$queue->enqueue($_) for 1 .. 10; $queue->end;
print "threads $sum ", $taker->join, "\n";

my $pid = open(my $child, '-|') // die; if (!$pid) { print "from a fork\n"; POSIX::_exit(0) }
print <$child>; close $child;
print `echo from a shell`, system('sh', '-c', 'exit 3') >> 8, "\n";
my $tool = open3(my $in, my $out, undef, 'tr', 'a-z', 'A-Z');
print $in "open3\n"; close $in; print <$out>; waitpid $tool, 0;

socketpair(my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die $!;
syswrite $theirs, "x"; print 'ready ', scalar(IO::Select->new($ours)->can_read(5)), "\n";
socket(my $server, AF_UNIX, SOCK_STREAM, 0) or die $!;
bind($server, sockaddr_un('/tmp/perl')) && listen($server, 5) or die $!;
if (!fork) { socket(my $s, AF_UNIX, SOCK_STREAM, 0); connect($s, sockaddr_un('/tmp/perl')) or die $!; print $s "connected\n"; close $s; POSIX::_exit(0) }
accept(my $peer, $server) or die $!; print <$peer>; wait;

my $file = File::Temp->new; print $file "kept\n"; $file->flush; flock($file, LOCK_EX) or die $!;
$file->sync; copy("$file", 'copy') or die $!; open(my $copy, '<', 'copy') or die $!; print <$copy>;
my $rang = 0; local $SIG{ALRM} = sub { $rang++ }; Time::HiRes::ualarm(1000); Time::HiRes::sleep(0.05);
print "alarm $rang\n";
