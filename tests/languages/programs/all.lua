-- Lua: coroutines, pipes, files, patterns.
local squares = coroutine.wrap(function() for n = 1, 3 do coroutine.yield(n * n) end end)
print(squares(), squares(), squares())
local pipe = io.popen('echo piped; exit 3'); print(pipe:read('l'), select(3, pipe:close()))
local name = os.tmpname(); local file = assert(io.open(name, 'w')); file:write(('x'):rep(9999)); file:close()
os.rename(name, '/tmp/m'); print(#io.open('/tmp/m'):read('a'), os.remove('/tmp/m'), os.execute('test -e /tmp/m'))
print(('key=value'):match('(%w+)=(%w+)'), utf8.len('äöü'), pcall(error, 'caught'))
collectgarbage(); print(os.getenv('HOME'), os.date('!%Y', 0), 7 // 2, 1 << 4)
