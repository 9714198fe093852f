// Node: workers that share memory, children, ciphers, watched files, a local server, streams.
const assert = require('assert');
const childProcess = require('child_process');
const crypto = require('crypto');
const events = require('events');
const fs = require('fs');
const http = require('http');
const os = require('os');
const stream = require('stream/promises');
const zlib = require('zlib');
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');

async function workers() {
    const shared = new Int32Array(new SharedArrayBuffer(8));
    const all = [1, 2, 3].map(n => new Worker(__filename, { workerData: { shared, n } }));
    await Promise.all(all.map(worker => events.once(worker, 'message')));
    Atomics.store(shared, 0, 1);
    Atomics.notify(shared, 0);
    await Promise.all(all.map(worker => events.once(worker, 'exit')));
    return shared[1];
}

async function children() {
    const upper = childProcess.spawn('tr', ['a-z', 'A-Z']);
    upper.stdin.end('spawned');
    let text = '';
    for await (const chunk of upper.stdout) text += chunk;
    const fork = childProcess.fork(__filename, ['child']);
    fork.send({ n: 20 });
    const [answer] = await events.once(fork, 'message');
    fork.disconnect();
    const [code] = await events.once(fork, 'exit');
    const sleeper = childProcess.spawn('sleep', ['99']);
    sleeper.kill();
    const [, signal] = await events.once(sleeper, 'exit');
    return [text, answer.n, code, signal, childProcess.execSync('echo $((6 * 7))').toString().trim()];
}

async function ciphers() {
    const key = await new Promise((done, fail) =>
        crypto.scrypt('word', 'salt', 32, (error, key) => error ? fail(error) : done(key)));
    const cipher = crypto.createCipheriv('aes-256-gcm', key, Buffer.alloc(12));
    const sealed = Buffer.concat([cipher.update('secret'), cipher.final()]);
    const open = crypto.createDecipheriv('aes-256-gcm', key, Buffer.alloc(12));
    open.setAuthTag(cipher.getAuthTag());
    const pair = crypto.generateKeyPairSync('ed25519');
    const signature = crypto.sign(null, sealed, pair.privateKey);
    const digest = Buffer.from(await crypto.webcrypto.subtle.digest('SHA-256', Buffer.from('abc')));
    return [open.update(sealed, null, 'utf8') + open.final('utf8'),
        crypto.verify(null, sealed, pair.publicKey, signature),
        digest.toString('hex').slice(0, 8), crypto.randomBytes(16).length];
}

async function watched() {
    fs.mkdirSync('folder');
    const watcher = fs.watch('folder');
    const heard = events.once(watcher, 'change');
    fs.writeFileSync('folder/new', 'x');
    const [kind, name] = await heard;
    watcher.close();
    return [kind, name];
}

async function served() {
    const server = http.createServer((request, response) => response.end('hello ' + request.url));
    server.listen('/tmp/http');
    await events.once(server, 'listening');
    const request = http.get({ socketPath: '/tmp/http', path: '/there' });
    const [response] = await events.once(request, 'response');
    let body = '';
    for await (const chunk of response) body += chunk;
    server.close();
    // There is no other host, and the loopback of the sandbox is down.
    const refused = http.get('http://127.0.0.1:80');
    const [error] = await events.once(refused, 'error');
    return [response.statusCode, body, error.code];
}

async function streamed() {
    fs.writeFileSync('plain', crypto.randomBytes(300000));
    await stream.pipeline(fs.createReadStream('plain'), zlib.createGzip(), fs.createWriteStream('z'));
    await stream.pipeline(fs.createReadStream('z'), zlib.createGunzip(), fs.createWriteStream('same'));
    await fs.promises.copyFile('same', 'copy');
    return fs.readFileSync('copy').equals(fs.readFileSync('plain'));
}

if (!isMainThread) {
    parentPort.postMessage('ready');
    Atomics.wait(workerData.shared, 0, 0);
    Atomics.add(workerData.shared, 1, workerData.n);
} else if (process.argv[2] === 'child') {
    process.on('message', ({ n }) => process.send({ n: n + 1 }));
} else {
    (async () => {
        for (const part of [workers, children, ciphers, watched, served, streamed])
            console.log(part.name, JSON.stringify(await part()));
        console.log(os.availableParallelism() > 0, os.hostname(), typeof process.memoryUsage().rss);
    })();
}
