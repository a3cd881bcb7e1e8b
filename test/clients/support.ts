// Serves the routes of the example and some more on a port, and runs client programs. Programs that are not installed are
// skipped.

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
/** More than any client sends before the server closes the connection. */
export const ENDLESS = 1024 ** 4

export const PYTHON = join(__dirname, '.venv/bin/python')

/** The `skip` option of a test that needs a tool. */
export function unlessInstalled (tool: string, ...args: string[]): string | false {
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
  /** The summary of the last exchange of a route that has ended. */
  last: (url: string) => Summary
}

interface Summary { url: string, code: string | undefined, bytesRead: number, framing: string, trailers: object }

export async function serve (t: Test): Promise<Served> {
  const app = Fastify({ forceCloseConnections: true })
  t.teardown(() => app.close())
  await app.register(duplex, { closeGrace: 0, drainTimeout: 100 })
  const ended: Summary[] = []
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

  // Refuses without reading.
  app.post('/refused', { duplex: true, config }, async (request, reply) => reply.code(403).send({ error: 'no' }))
  // Ends the response after the first chunk.
  app.post('/early', { duplex: true, config }, async (request, reply) => {
    await once(reply.duplex, 'data')
    reply.duplex.pause().end('enough')
  })
  // For clients that send everything before they read: the handler reads everything before it writes.
  app.post('/spooled', { duplex: { bodyLimit: 128 * MB }, config }, async function * (request, reply) {
    const chunks: Buffer[] = []
    for await (const chunk of reply.duplex) chunks.push(chunk)
    yield * chunks
  })
  // An echo with a short idleTimeout, for clients that do not read.
  app.post('/impatient', { duplex: { idleTimeout: 1000 }, config }, async (request, reply) => pipeline(reply.duplex, reply.duplex))
  // Begins the response, and then reads more slowly than any client sends.
  app.post('/slow', { duplex: { idleTimeout: 2000 }, config }, async (request, reply) => {
    const stream = reply.duplex
    stream.flushHeaders()
    for await (const chunk of stream) {
      if (chunk.length > 0) await new Promise((resolve) => setTimeout(resolve, 2))
    }
    stream.end(String(stream.bytesRead))
  })
  app.post('/received', { duplex: true, config }, async function * (request, reply) {
    for await (const chunk of reply.duplex) yield chunk
  })
  app.get('/ping', () => 'pong')

  const address = await app.listen({ port: 0, host: '127.0.0.1' })
  return { app, address, port: (app.server.address() as AddressInfo).port, last: (path) => ended.filter(({ url }) => url === path).at(-1)! }
}

/** Runs a program for a minute at most. @returns the lines that it has printed */
export function run (command: string, args: string[], input?: Readable): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const child = execFile(command, args, { timeout: 60_000, maxBuffer: 1024 * MB }, (error, stdout, stderr) => {
      if (error?.killed) reject(new Error(`${command} ${args.join(' ')}: not finished within a minute`))
      else resolve((stdout + stderr).trimEnd().split('\n'))
    })
    if (input) pipeline(input, child.stdin!).catch(() => {}) // the program may exit before it has read all of its input
    else child.stdin!.end()
  })
}

/** A stream of `size` bytes that counts how many were read. */
export class Source extends Readable {
  bytesRead = 0
  private readonly size: number

  constructor (size: number) {
    super()
    this.size = size
  }

  override _read (): void {
    if (this.bytesRead >= this.size) {
      this.push(null)
    } else {
      this.bytesRead += 65536
      this.push(Buffer.alloc(65536, this.bytesRead / 65536))
    }
  }
}
