// Handlers in the styles of the README. No client may crash the process through one of them.

import { once } from 'node:events'
import net from 'node:net'
import { PassThrough, Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyReply, FastifyRequest } from 'fastify'

export type Handler = (request: FastifyRequest, reply: FastifyReply) => unknown

export interface HandlerEntry {
  run: Handler
  /** The handler reads the whole request and ends the response, so the connection must be kept. */
  keepsConnection?: true
  /** The handler writes even while the client is silent, so idleTimeout does not end the exchange. */
  keepsWriting?: true
}

/** The path of the route of a handler. */
export function pathOf (pace: string, name: string): string {
  return `/${pace}/${name.replace(/\W+/g, '-')}`
}

const BLOCK = Buffer.alloc(64 * 1024, 'x')
const MANY_BLOCKS = 128
const SOME_MS = 5

function upperCase (): Transform {
  return new Transform({ transform (chunk, encoding, done) { done(null, String(chunk).toUpperCase()) } })
}

export const README_HANDLERS: Record<string, HandlerEntry> = {
  echo: {
    keepsConnection: true,
    run: async (request, reply) => {
      reply.type(request.headers['content-type'] ?? 'application/octet-stream')
      await pipeline(reply.duplex, reply.duplex)
    }
  },
  transform: { keepsConnection: true, run: async (request, { duplex }) => pipeline(duplex, upperCase(), duplex) },
  loop: {
    keepsConnection: true,
    run: async (request, { duplex }) => {
      for await (const chunk of duplex) duplex.write(chunk)
      duplex.end()
    }
  },
  'loop with drain': {
    keepsConnection: true,
    run: async (request, { duplex }) => {
      for await (const chunk of duplex) {
        if (!duplex.write(chunk)) await once(duplex, 'drain')
      }
      duplex.end()
    }
  },
  generator: { keepsConnection: true, run: async function * (request, reply) { for await (const chunk of reply.duplex) yield String(chunk).toUpperCase() } },
  'late generator': {
    keepsConnection: true,
    run: async function * (request, reply) {
      for await (const chunk of reply.duplex) {
        await immediate()
        yield chunk
      }
    }
  },
  readable: { keepsConnection: true, run: async (request, reply) => Readable.from([...await reply.duplex.toArray(), 'end']) },
  events: {
    keepsConnection: true,
    run: (request, { duplex }) => {
      duplex.on('data', (chunk) => duplex.write(chunk))
      duplex.on('end', () => duplex.end())
    }
  },
  pipe: { keepsConnection: true, run: (request, { duplex }) => { duplex.pipe(duplex) } },
  count: {
    keepsConnection: true,
    run: async (request, { duplex }) => {
      let size = 0
      for await (const chunk of duplex) size += chunk.length
      duplex.setTrailers({ 'x-size': String(size) }).end(String(size))
    }
  },
  download: { run: (request, reply) => { reply.type('text/plain').duplex.end(BLOCK) } },
  flood: { run: async function * () { for (let i = 0; i < MANY_BLOCKS; i++) yield BLOCK } },
  upload: {
    keepsConnection: true,
    keepsWriting: true,
    run: (request, { duplex }) => {
      // Reports progress as in the README, but by a timer.
      let size = 0
      const timer = setInterval(() => {
        if (!duplex.headersSent) duplex.flushHeaders()
        duplex.write(`${size}\n`)
      }, SOME_MS)
      duplex.on('data', (chunk) => { size += chunk.length })
      duplex.on('end', () => {
        clearInterval(timer)
        duplex.end('end')
      })
      duplex.on('close', () => clearInterval(timer))
    }
  },
  'late head': {
    keepsConnection: true,
    run: async (request, { duplex }) => {
      const timer = setTimeout(() => { if (!duplex.headersSent) duplex.flushHeaders() }, SOME_MS)
      for await (const chunk of duplex) if (chunk.length > 1000) await immediate()
      clearTimeout(timer)
      duplex.end('end')
    }
  },
  'head in an event': {
    keepsConnection: true,
    run: (request, { duplex }) => {
      duplex.once('end', () => {
        if (!duplex.headersSent) duplex.flushHeaders()
        duplex.end('end')
      })
      duplex.resume()
      setTimeout(() => { if (!duplex.headersSent) duplex.flushHeaders() }, 2 * SOME_MS)
    }
  },
  information: {
    keepsConnection: true,
    run: (request, { duplex }) => {
      const timer = setInterval(() => {
        if (!duplex.headersSent) duplex.writeInformation(102)
      }, SOME_MS)
      duplex.resume()
      duplex.on('end', () => {
        clearInterval(timer)
        duplex.end('end')
      })
      setTimeout(() => clearInterval(timer), 20 * SOME_MS)
    }
  },
  hints: {
    keepsConnection: true,
    run: async function * (request, reply) {
      reply.duplex.writeInformation(103, { link: '</a.css>; rel=preload' })
      yield * reply.duplex
    }
  },
  forbidden: { run: async (request, reply) => reply.code(403).send('no') },
  'forbidden, callback': { run: (request, reply) => { reply.code(403).send('no') } },
  'forbidden, later': {
    run: async (request, reply) => {
      for await (const chunk of reply.duplex) if (chunk.length > 0) break
      return reply.code(403).send('no')
    }
  },
  value: { run: async () => ({ a: 1 }) },
  'throws before the head': { run: async () => { throw new Error('before the head') } },
  'throws before the head, callback': { run: () => { throw new Error('before the head') } },
  'throws while it reads': {
    run: async (request, { duplex }) => {
      for await (const chunk of duplex) if (chunk.length > 0) throw new Error('while it reads')
      throw new Error('at the end')
    }
  },
  'throws after the head': {
    run: async (request, { duplex }) => {
      duplex.write('some')
      await immediate()
      throw new Error('after the head')
    }
  },
  'throws in a generator': {
    run: async function * (request, reply) {
      yield BLOCK
      for await (const chunk of reply.duplex) yield chunk
      throw new Error('after the head')
    }
  },
  shutdown: {
    run: async (request, { duplex }) => {
      duplex.flushHeaders()
      duplex.on('shutdown', () => duplex.end('bye'))
      for await (const chunk of duplex) if (!duplex.writableEnded) duplex.write(chunk)
      if (!duplex.writableEnded) duplex.end()
    }
  },
  'waits for the signal': {
    run: async (request, { duplex }) => {
      duplex.resume()
      if (!request.signal.aborted) await once(request.signal, 'abort')
      duplex.end()
    }
  },
  attach: {
    run: async (request, reply) => {
      if (request.headers.upgrade !== 'tcp') return reply.code(426).header('upgrade', 'tcp').send()
      const { duplex } = reply.code(101).header('upgrade', 'tcp')
      const cat = new PassThrough()
      await Promise.all([pipeline(duplex, cat), pipeline(cat, duplex)])
    }
  },
  detach: {
    run: async (request, reply) => {
      for await (const chunk of reply.duplex) if (chunk.length > 0) await immediate()
      const { socket, head } = reply.duplex.detach()
      socket.on('error', () => {})
      socket.write('HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n')
      socket.end(head)
      socket.resume()
    }
  },
  'detach, callback': {
    run: (request, reply) => {
      const { socket, head } = reply.duplex.detach()
      socket.on('error', () => socket.destroy())
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${head.length}\r\nConnection: close\r\n\r\n`)
      socket.write(head)
      socket.pipe(socket)
    }
  },
  proxy: {
    run: async (request, reply) => {
      const { host, port } = request.authority!
      const upstream = net.connect({ host, port, allowHalfOpen: true })
      await once(upstream, 'connect')
      await Promise.all([pipeline(reply.duplex, upstream), pipeline(upstream, reply.duplex)])
    }
  },
  'careful proxy': {
    run: async (request, reply) => {
      const { host, port } = request.authority!
      const upstream = net.connect({ host, port, allowHalfOpen: true })
      try {
        await once(upstream, 'connect')
      } catch {
        return reply.code(502).send('no way')
      }
      const { duplex } = reply
      upstream.on('error', (error) => duplex.destroy(error))
      duplex.on('close', () => upstream.destroy())
      await Promise.all([pipeline(duplex, upstream), pipeline(upstream, duplex)])
    }
  }
}
