// Programs through the proxy: git, curl, aiohttp, WebSocket, and more bytes than any buffer holds. What is not installed is skipped.

import { execFile, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { promisify } from 'node:util'
import Fastify, { type FastifyInstance } from 'fastify'
import duplex from 'fastify-duplex'
import { Agent, open } from 'fastify-duplex/client'
import { duplexProxy } from 'fastify-duplex/proxy'
import t, { type Test } from 'tap'
import WebSocket, { WebSocketServer } from 'ws'
import { git as gitRoutes } from '../../example/git.ts'
import { ENDLESS, MB, PYTHON, Source, run, serve, unlessInstalled } from './support.ts'

/** Starts a proxy in front of a server. @returns its address */
async function serveProxy (t: Test, upstream: string): Promise<{ address: string, app: FastifyInstance }> {
  const app = Fastify({ forceCloseConnections: true })
  t.teardown(() => app.close())
  await app.register(duplex, { closeGrace: 0 })
  await app.register(duplexProxy, { upstream })
  return { app, address: await app.listen({ port: 0, host: '127.0.0.1' }) }
}

t.test('git clones, fetches and pushes', { skip: unlessInstalled('git', '--version') }, async (t) => {
  const directory = t.testdir()
  const app = Fastify({ forceCloseConnections: true })
  t.teardown(() => app.close())
  await app.register(duplex)
  await app.register(gitRoutes, { root: directory, push: true })
  const { address } = await serveProxy(t, await app.listen({ port: 0, host: '127.0.0.1' }))
  // No settings of the machine or of its user.
  const env = { PATH: process.env.PATH, HOME: directory, GIT_CONFIG_NOSYSTEM: '1', GIT_TERMINAL_PROMPT: '0' }
  const git = async (...args: string[]): Promise<string> => {
    const { stdout } = await promisify(execFile)('git', ['-c', 'user.name=a', '-c', 'user.email=a@example.com', ...args], { env, cwd: directory })
    return stdout
  }
  await git('init', '--quiet', '--bare', 'a.git')
  await git('clone', '--quiet', `${address}/a.git`, 'work')
  for (const size of [100, 3 * MB]) {
    const content = randomBytes(size)
    await writeFile(join(directory, 'work/file'), content)
    await git('-C', 'work', 'add', 'file')
    await git('-C', 'work', 'commit', '--quiet', '--message', String(size))
    await git('-C', 'work', 'push', '--quiet', 'origin', 'HEAD:refs/heads/main')
    await git('clone', '--quiet', '--branch', 'main', `${address}/a.git`, `copy-${size}`)
    t.ok(content.equals(await readFile(join(directory, `copy-${size}/file`))))
  }
  for (let i = 0; i < 50; i++) await git('-C', 'copy-100', 'commit', '--quiet', '--allow-empty', '--message', `local ${i}`)
  await git('-C', 'copy-100', 'fetch', '--quiet')
  t.equal(await git('-C', 'copy-100', 'rev-parse', 'origin/main'), await git('-C', 'work', 'rev-parse', 'HEAD'))
})

t.test('curl', { skip: unlessInstalled('curl', '--version') }, async (t) => {
  const served = await serve(t)
  const { address } = await serveProxy(t, served.address)

  t.test('shows each answer before the next word is sent', async (t) => {
    const curl = spawn('curl', ['-sSN', '-T', '.', '-X', 'POST', `${address}/upper`])
    for (const word of ['one', 'two', 'three']) {
      curl.stdin.write(word)
      t.equal(String(await once(curl.stdout, 'data')), word.toUpperCase())
    }
    curl.stdin.end()
    t.strictSame(await once(curl, 'close'), [0, null])
  })

  t.test('with Expect sends nothing of an upload that the server behind the proxy refuses', async (t) => {
    const args = ['-sS', '-X', 'POST', '-H', 'Expect: 100-continue', '--expect100-timeout', '60', '-T', '-']
    t.strictSame(await run('curl', [...args, '-o', '/dev/null', '-w', '%{http_code} %{size_upload}\n', `${address}/refused`], new Source(ENDLESS)), ['403 0'])
    t.strictSame(await run('curl', [...args, `${address}/upper`], Readable.from(['hello'])), ['HELLO'])
    t.equal(served.last('/refused').bytesRead, 0)
  })

  t.test('gets an echo of more than any buffer holds', async (t) => {
    for (const args of [['-T', '-'], ['-0', '--data-binary', '@-'], ['--data-binary', '@-']]) {
      const [size] = await run('curl', ['-sS', '-o', '/dev/null', '-X', 'POST', '-w', '%{size_download}\n', ...args, `${address}/echo`], new Source(64 * MB))
      t.equal(Number(size), 64 * MB, args.join(' '))
    }
  })
})

t.test('aiohttp', { skip: unlessInstalled(PYTHON, '-c', 'import aiohttp') }, async (t) => {
  const served = await serve(t)
  const { address } = await serveProxy(t, served.address)
  const aiohttp = (mode: string, path: string, size = 0): Promise<string[]> => run(PYTHON, [join(__dirname, 'python/with_aiohttp.py'), mode, address + path, String(size)])
  t.strictSame(await aiohttp('talk', '/upper'), ['ONE', 'TWO', 'THREE', 'end 0'])
  t.strictSame(await aiohttp('echo', '/echo', 64 * MB), [`${64 * MB} True`])
  t.strictSame(await aiohttp('upload', '/refused', ENDLESS), ['403 True False False'])
  t.strictSame(await aiohttp('expect', '/refused', ENDLESS), ['403 True False True'])
  // It sends no trailers, and must not be confused by those that it gets.
  const origin = Fastify({ forceCloseConnections: true })
  t.teardown(() => origin.close())
  await origin.register(duplex)
  origin.post('/trailers', { duplex: true }, async function * (_request, reply) {
    for await (const chunk of reply.duplex) yield String(chunk).toUpperCase()
    reply.duplex.setTrailers({ 'x-bytes': reply.duplex.bytesRead })
  })
  const other = await serveProxy(t, await origin.listen({ port: 0, host: '127.0.0.1' }))
  t.strictSame(await run(PYTHON, [join(__dirname, 'python/with_aiohttp.py'), 'talk', `${other.address}/trailers`, '0']), ['ONE', 'TWO', 'THREE', 'end 0'])
})

t.test("trailers of Python's http.client, framed by hand", { skip: unlessInstalled(PYTHON, '--version') }, async (t) => {
  const served = await serve(t)
  const { address } = await serveProxy(t, served.address)
  t.strictSame(await run(PYTHON, [join(__dirname, 'python/with_http_client.py'), 'talk', `${address}/received`, '0']), ['one', 'two', 'three', 'end 0'])
  t.match(served.last('/received'), { framing: 'chunked', trailers: { 'x-words': '3' } })
})

t.test('a WebSocket echo', async (t) => {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
  t.teardown(() => server.close())
  server.on('connection', (socket) => socket.on('message', (data, binary) => socket.send(data, { binary })))
  await once(server, 'listening')
  const { address } = await serveProxy(t, `http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  const socket = new WebSocket(address.replace('http', 'ws'))
  await once(socket, 'open')
  for (const size of [0, 125, 65_536, 16 * MB]) {
    const data = randomBytes(size)
    socket.send(data)
    t.ok(data.equals((await once(socket, 'message'))[0]), `${size} bytes`)
  }
  socket.close(1000)
  t.match(await once(socket, 'close'), [1000])
})

t.test('1 GiB both ways at once, with a slow side, in bounded memory', async (t) => {
  const SIZE = 1024 * MB
  const LIMIT = 200 * MB
  const origin = Fastify({ forceCloseConnections: true })
  t.teardown(() => origin.close())
  await origin.register(duplex)
  origin.post('/echo', { duplex: true }, async (_request, reply) => {
    // Slow by turns: it stops reading for a while after each 64 MiB.
    let next = 64 * MB
    for await (const chunk of reply.duplex) {
      if (!reply.duplex.write(chunk)) await once(reply.duplex, 'drain')
      if (reply.duplex.bytesRead < next) continue
      next += 64 * MB
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    reply.duplex.end()
  })
  const { address } = await serveProxy(t, await origin.listen({ port: 0, host: '127.0.0.1' }))
  const agent = new Agent()
  t.teardown(() => agent.close())
  const call = open(`${address}/echo`, { method: 'POST', agent })
  const sent = createHash('sha1')
  const received = createHash('sha1')
  const block = randomBytes(MB)
  const before = process.memoryUsage().rss
  let bytesSent = 0
  let bytesReceived = 0
  let highest = 0
  let inFlight = 0
  const write = async (): Promise<void> => {
    while (bytesSent < SIZE) {
      const chunk = block.subarray(0, 1 + (bytesSent * 31) % MB)
      sent.update(chunk)
      bytesSent += chunk.length
      if (!call.write(chunk)) await once(call, 'drain')
    }
    call.end()
  }
  const read = async (): Promise<void> => {
    let next = 100 * MB
    for await (const chunk of call) {
      received.update(chunk)
      bytesReceived += chunk.length
      inFlight = Math.max(inFlight, bytesSent - bytesReceived)
      highest = Math.max(highest, process.memoryUsage.rss())
      if (bytesReceived < next) continue
      next += 100 * MB
      await new Promise((resolve) => setTimeout(resolve, 50)) // the other slow side
    }
  }
  await Promise.all([write(), read()])
  t.equal(bytesReceived, bytesSent)
  t.equal(received.digest('hex'), sent.digest('hex'))
  t.comment(`${Math.round(inFlight / MB)} MiB on their way at most, most of them in the kernel; memory grew by ${Math.round((highest - before) / MB)} MiB`)
  t.ok(inFlight < LIMIT)
  t.ok(highest - before < LIMIT)
})
