// Tests exec and attach with dockerode and with the docker command, which also goes through a proxy and the gateway.

import assert from 'node:assert/strict'
import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { type IncomingMessage, request } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { buffer, text } from 'node:stream/consumers'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import Docker from 'dockerode'
import Fastify, { type FastifyInstance } from 'fastify'
import duplex from 'fastify-duplex'
import { proxy } from 'fastify-duplex/proxy'
import { engine } from './exec.ts'
import { gateway } from './gateway.ts'

function hasNo (command: string): string | false {
  if (process.platform === 'win32') return 'the tests need sh'
  try {
    execFileSync(command, ['--version'], { stdio: 'ignore' })
    return false
  } catch {
    return `${command} is not installed`
  }
}

const noDocker = hasNo('docker')
const noShell = hasNo('env') && 'the tests need sh'
const command = ['sh', '-c', 'echo started; echo warned >&2; while read line; do echo "got $line"; done; exit 7']
const apps: FastifyInstance[] = []
let directory = ''
const ports = { direct: 0, proxy: 0, gateway: 0 }

async function listen (setup: (app: FastifyInstance) => unknown): Promise<number> {
  const app = Fastify()
  apps.unshift(app)
  await app.register(duplex)
  await setup(app)
  await app.listen({ port: 0, host: '127.0.0.1' })
  return (app.server.address() as AddressInfo).port
}

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'exec-'))
  await writeFile(join(directory, 'config.json'), JSON.stringify({ HttpHeaders: { authorization: 'Bearer secret' } }))
})

beforeEach(async () => {
  if (noShell) return
  ports.direct = await listen((app) => app.register(engine, { name: 'web', command }))
  const upstream = `http://127.0.0.1:${ports.direct}`
  ports.proxy = await listen((app) => app.all('/*', { duplex: true }, proxy({ upstream })))
  ports.gateway = await listen((app) => app.register(gateway, { upstream, path: '', users: { secret: 'ann' } }))
})

afterEach(async () => {
  for (const app of apps.splice(0)) await app.close()
})

after(() => rm(directory, { recursive: true }))

type Way = keyof typeof ports

function startDocker (way: Way, args: string[]): ChildProcessWithoutNullStreams {
  const host = `tcp://127.0.0.1:${ports[way]}${way === 'gateway' ? '/api' : ''}`
  const child = spawn('docker', ['-H', host, ...args], { env: { PATH: process.env.PATH, HOME: directory, DOCKER_CONFIG: directory } })
  child.stdin.on('error', () => {}) // docker may end before it has read everything
  return child
}

/** Runs docker. @param input what it reads; null leaves its stdin open */
async function docker (way: Way, args: string[], input: string | Buffer | null = ''): Promise<{ stdout: Buffer, stderr: string, exitCode: number }> {
  const child = startDocker(way, args)
  if (input !== null) child.stdin.end(input)
  const [stdout, stderr, [exitCode]] = await Promise.all([buffer(child.stdout), text(child.stderr), once(child, 'close')])
  return { stdout, stderr, exitCode }
}

for (const way of ['direct', 'proxy', 'gateway'] as const) {
  const exec = async (...args: string[]): Promise<[string, string, number]> => {
    const { stdout, stderr, exitCode } = await docker(way, ['exec', ...args])
    return [String(stdout), stderr, exitCode]
  }

  test(`docker exec, ${way}`, { skip: noDocker }, async () => {
    const { stdout, stderr, exitCode } = await docker(way, ['exec', '-i', 'web', 'sh', '-c', 'cat; echo err >&2; exit 3'], 'one\ntwo\n')
    assert.deepEqual([String(stdout), stderr, exitCode], ['one\ntwo\n', 'err\n', 3])
    assert.deepEqual(await exec('web', 'echo', 'hi'), ['hi\n', '', 0])
    assert.deepEqual(await exec('web', 'cat'), ['', '', 0], 'without -i there is no stdin')
    assert.deepEqual(await exec('-e', 'A=b=c', '-w', '/', 'web', 'sh', '-c', 'echo $A; pwd'), ['b=c\n/\n', '', 0])
    assert.deepEqual(await exec('web', 'sh', '-c', 'kill -9 $$'), ['', '', 137])
  })

  test(`docker exec with much data, byte for byte, ${way}`, { skip: noDocker }, async () => {
    const content = randomBytes(20 * 1024 * 1024)
    const { stdout, exitCode } = await docker(way, ['exec', '-i', 'web', 'cat'], content)
    assert.ok(stdout.equals(content))
    assert.equal(exitCode, 0)
  })

  test(`docker exec of a process that ends before its stdin does, ${way}`, { skip: noDocker }, async () => {
    const { stdout, exitCode } = await docker(way, ['exec', '-i', 'web', 'sh', '-c', 'echo bye; exit 4'], null)
    assert.deepEqual([String(stdout), exitCode], ['bye\n', 4])
  })

  test(`docker exec that fails, ${way}`, { skip: noDocker }, async () => {
    assert.deepEqual(await exec('other', 'ls'), ['', 'Error response from daemon: No such container: other\n', 1])
    const [, stderr, exitCode] = await exec('web', 'no-such-command')
    assert.match(stderr, /400|no-such-command/)
    assert.equal(exitCode, 1)
  })
}

for (const way of ['direct', 'proxy', 'gateway'] as const) {
  test(`docker version, attach and logs, ${way}`, { skip: noDocker }, async () => {
    assert.equal(String((await docker(way, ['version', '--format', '{{.Server.APIVersion}}'])).stdout), '1.44\n')
    const child = startDocker(way, ['attach', 'web'])
    child.stdin.write('one\n')
    let output = ''
    for await (const chunk of child.stdout.setEncoding('utf8')) {
      output += chunk
      if (output.endsWith('got one\n')) child.stdin.end('two\n') // and the process ends at its end
    }
    assert.match(output, /^(started\n)?got one\ngot two\n$/)
    assert.equal(child.exitCode ?? (await once(child, 'exit'))[0], 7)
    const { stdout, stderr } = await docker(way, ['logs', '--follow', 'web'])
    assert.deepEqual([String(stdout), stderr], ['started\ngot one\ngot two\n', 'warned\n'])
  })
}

test('dockerode exec', { skip: noShell }, async () => {
  const client = new Docker({ host: '127.0.0.1', port: ports.direct, protocol: 'http', version: 'v1.44' })
  const exec = await client.getContainer('web').exec({ Cmd: ['sh', '-c', 'cat; echo err >&2; exit 3'], AttachStdin: true, AttachStdout: true, AttachStderr: true })
  const stream = await exec.start({ hijack: true, stdin: true })
  const [out, err] = [new PassThrough(), new PassThrough()]
  client.modem.demuxStream(stream, out, err)
  stream.write('one')
  assert.equal(String((await once(out, 'data'))[0]), 'one', 'while stdin is open')
  assert.equal((await exec.inspect()).Running, true)
  stream.end('two')
  assert.equal(String((await once(out, 'data'))[0]), 'two')
  assert.equal(String((await once(err, 'data'))[0]), 'err\n')
  await once(stream, 'end')
  assert.equal((await exec.inspect()).ExitCode, 3)
})

test('dockerode exec with a terminal, and without stdin', { skip: noShell }, async () => {
  const client = new Docker({ host: '127.0.0.1', port: ports.direct, protocol: 'http' })
  const terminal = await client.getContainer('web').exec({ Cmd: ['sh', '-c', 'echo out; read line; echo "$line" >&2'], Tty: true, AttachStdin: true, AttachStdout: true })
  const stream = await terminal.start({ hijack: true, stdin: true, Tty: true })
  await terminal.resize({ h: 24, w: 80 })
  stream.write('line\n')
  assert.equal(await text(stream), 'out\nline\n', 'no frames')
  const plain = await client.getContainer('web').exec({ Cmd: ['echo', 'hi'], AttachStdout: true })
  assert.equal(String((await buffer(await plain.start({}))).subarray(8)), 'hi\n', 'a response, and no tunnel')
})

test('a process that has ended before the options come', { skip: noShell, timeout: 30_000 }, async () => {
  const url = `http://127.0.0.1:${ports.direct}`
  const created = await fetch(`${url}/containers/web/exec`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ Cmd: ['echo', 'hi'] }) })
  const { Id: id } = await created.json() as { Id: string }
  const start = request(`${url}/exec/${id}/start`, { method: 'POST', headers: { connection: 'upgrade', upgrade: 'tcp', 'content-length': 2 } })
  start.flushHeaders()
  let exec = { ExitCode: null }
  while (exec.ExitCode === null) exec = await (await fetch(`${url}/exec/${id}/json`)).json() as typeof exec
  start.end('{}')
  const [response, socket, head] = await once(start, 'upgrade') as [IncomingMessage, Socket, Buffer]
  assert.equal(response.statusCode, 101)
  assert.equal(String(Buffer.concat([head, await buffer(socket.end())]).subarray(8)), 'hi\n')
})

test('a client that leaves ends its process', { skip: noShell, timeout: 30_000 }, async () => {
  const client = new Docker({ host: '127.0.0.1', port: ports.direct, protocol: 'http' })
  const exec = await client.getContainer('web').exec({ Cmd: ['cat'], AttachStdin: true, AttachStdout: true })
  const stream = await exec.start({ hijack: true, stdin: true })
  assert.equal((await exec.inspect()).Running, true)
  stream.destroy()
  while ((await exec.inspect()).Running);
})
