// The example's routes and a few more on a port, and programs to talk to them. What is not installed is skipped.

import { execFile, execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import Fastify, { type FastifyInstance } from 'fastify'
import duplex from 'fastify-duplex'
import type { Test } from 'tap'
import { bulkImport } from '../../example/import.ts'
import { routes } from '../../example/server.ts'

export const MB = 1024 * 1024
/** More than anybody sends before the server hangs up. */
export const ENDLESS = 1024 ** 4

export const PYTHON = join(__dirname, '.venv/bin/python')

/** What `t.test()` takes as `skip`. */
export function unless (tool: string, ...args: string[]): string | false {
  try {
    execFileSync(tool, args, { stdio: 'ignore' })
    return false
  } catch {
    return tool === PYTHON && !existsSync(PYTHON) ? 'there is no test/clients/.venv, see CONTRIBUTING.md' : `${tool} is not installed`
  }
}

export interface Served {
  app: FastifyInstance
  port: number
  address: string
  /** The last exchange of a route that has ended. */
  last: (url: string) => Ended
}

interface Ended { url: string, code: string | undefined, bytesRead: number, framing: string, trailers: object }

export async function serve (t: Test): Promise<Served> {
  const app = Fastify({ forceCloseConnections: true })
  t.teardown(() => app.close())
  await app.register(duplex, { closeGrace: 0, drainTimeout: 100 })
  const ended: Ended[] = []
  app.addHook('preHandler', async (request, reply) => {
    const { url, routeOptions: { config } } = request
    if (!(config as { duplex?: boolean }).duplex) return
    const stream = reply.duplex
    stream.once('close', () => {
      ended.push({ url, code: (stream.errored as { code?: string } | null)?.code, bytesRead: stream.bytesRead, framing: stream.framing.request, trailers: stream.trailers })
    })
  })
  await app.register(routes)
  await app.register(bulkImport, { save: async () => {} })
  const config = { duplex: true }

  // Refuses, and reads nothing.
  app.post('/refused', { duplex: true, config }, async (request, reply) => reply.code(403).send({ error: 'no' }))
  // Has said all after the first piece.
  app.post('/early', { duplex: true, config }, async (request, reply) => {
    await once(reply.duplex, 'data')
    reply.duplex.pause().end('enough')
  })
  // The remedy for clients that send all before they read: so does the handler.
  app.post('/spooled', { duplex: { bodyLimit: 128 * MB }, config }, async function * (request, reply) {
    const pieces: Buffer[] = []
    for await (const piece of reply.duplex) pieces.push(piece)
    yield * pieces
  })
  // Echo, which gives up on clients that do not read.
  app.post('/impatient', { duplex: { idleTimeout: 1000 }, config }, async (request, reply) => pipeline(reply.duplex, reply.duplex))
  // Reads more slowly than anybody sends, and has begun to answer.
  app.post('/slow', { duplex: { idleTimeout: 2000 }, config }, async (request, reply) => {
    const stream = reply.duplex
    stream.flushHeaders()
    for await (const piece of stream) {
      if (piece.length > 0) await new Promise((resolve) => setTimeout(resolve, 2))
    }
    stream.end(String(stream.bytesRead))
  })
  app.post('/told', { duplex: true, config }, async function * (request, reply) {
    for await (const piece of reply.duplex) yield piece
  })
  app.get('/ping', () => 'pong')

  const address = await app.listen({ port: 0, host: '127.0.0.1' })
  return { app, address, port: (app.server.address() as AddressInfo).port, last: (path) => ended.filter(({ url }) => url === path).at(-1)! }
}

/** What a program prints, line by line; it has a minute. */
export function run (command: string, args: string[], input?: Readable): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const child = execFile(command, args, { timeout: 60_000, maxBuffer: 1024 * MB }, (error, stdout, stderr) => {
      if (error?.killed) reject(new Error(`${command} ${args.join(' ')}: no end in a minute`))
      else resolve((stdout + stderr).trimEnd().split('\n'))
    })
    if (input) pipeline(input, child.stdin!).catch(() => {}) // the program may end before its input
    else child.stdin!.end()
  })
}

/** So many bytes, and a count of those that were taken. */
export class Source extends Readable {
  taken = 0
  private readonly size: number

  constructor (size: number) {
    super()
    this.size = size
  }

  override _read (): void {
    if (this.taken >= this.size) {
      this.push(null)
    } else {
      this.taken += 65536
      this.push(Buffer.alloc(65536, this.taken / 65536))
    }
  }
}
