// Four worker threads count primes.
const { Worker, isMainThread, parentPort, workerData } = require("node:worker_threads");

if (isMainThread) {
  for (let part = 0; part < 4; part++) {
    new Worker(__filename, { workerData: part }).on("message", (found) => console.log(found));
  }
} else {
  let primes = 0;
  for (let n = workerData * 50_000; n < (workerData + 1) * 50_000; n++) {
    let isPrime = n > 1;
    for (let d = 2; d * d <= n && isPrime; d++) isPrime = n % d !== 0;
    primes += isPrime;
  }
  parentPort.postMessage(`${workerData * 50_000} and up: ${primes} primes`);
}
