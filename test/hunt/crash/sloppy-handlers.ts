// Handlers that break the rules. They may spoil their own exchange, but not the process, other exchanges or `app.close()`.

import { once } from 'node:events'
import { setImmediate as immediate } from 'node:timers/promises'
import { type Duplex, Readable } from 'node:stream'
import type { HandlerEntry } from './handlers.ts'

const SOME_MS = 3
/** Longer than any exchange of this hunt takes. */
const FOR_EVER = 400

/** Repeats an action, even after the exchange has ended. */
function repeat (action: () => void): void {
  const timer = setInterval(action, SOME_MS).unref()
  setTimeout(() => clearInterval(timer), FOR_EVER).unref()
}

export const SLOPPY_HANDLERS: Record<string, HandlerEntry> = {
  mute: { run: async (request, { duplex }) => { await once(duplex, 'nothing') } },
  'mute, callback': { run: (request, reply) => { reply.duplex.setTrailers({}) } },
  'never touches it': { run: async () => { await new Promise(() => {}) } },
  'never reads': { run: (request, { duplex }) => { duplex.write('some') } },
  'never ends': {
    run: async (request, { duplex }) => {
      for await (const chunk of duplex) duplex.write(chunk)
    }
  },
  'ends twice': { run: (request, { duplex }) => { duplex.end('a').end('b') } },
  'writes after the end': {
    run: (request, { duplex }) => {
      duplex.end('a')
      duplex.write('b')
    }
  },
  'writes after the end, later': {
    run: async (request, { duplex }) => {
      duplex.end('a')
      await immediate()
      duplex.write('b')
    }
  },
  'writes for ever': { run: (request, { duplex }) => { repeat(() => duplex.write('some')) } },
  'heads for ever': { run: (request, { duplex }) => { repeat(() => { if (!duplex.headersSent) duplex.flushHeaders() }) } },
  'information for ever': { run: (request, { duplex }) => { repeat(() => { if (!duplex.headersSent) duplex.writeInformation(102) }) } },
  'ends its socket': {
    run: (request, { duplex }) => {
      duplex.write('some')
      duplex.socket.end()
    }
  },
  'ends its socket first': { run: (request, { duplex }) => { duplex.socket.end() } },
  'ends its socket, later': {
    run: async (request, { duplex }) => {
      duplex.write('some')
      await immediate()
      duplex.socket.end()
      await immediate()
      duplex.end('more')
    }
  },
  'destroys its socket': { run: (request, { duplex }) => { duplex.socket.destroy() } },
  'destroys its socket, later': {
    run: async (request, { duplex }) => {
      duplex.write('some')
      await immediate()
      duplex.socket.destroy(new Error('of the handler'))
      duplex.end('more')
    }
  },
  'ends reply.raw': { run: (request, reply) => { reply.raw.end('raw') } },
  'ends reply.raw after a write': {
    run: async (request, reply) => {
      reply.duplex.write('some')
      await immediate()
      reply.raw.end()
    }
  },
  'returns a value after the head': {
    run: async (request, { duplex }) => {
      duplex.write('some')
      return 'value'
    }
  },
  'sends after the head': {
    run: (request, reply) => {
      reply.duplex.write('some')
      reply.send('more')
    }
  },
  'writes after send': {
    run: (request, reply) => {
      reply.send('a')
      reply.duplex.write('b')
    }
  },
  'detaches and drops': {
    run: async (request, { duplex }) => {
      for await (const chunk of duplex) if (chunk.length > 0) continue
      ignoreErrors(duplex.detach().socket)
    }
  },
  'detaches in a turn': { run: async (request, { duplex }) => { await immediate(); ignoreErrors(duplex.detach().socket) } },
  'destroys it': { run: (request, { duplex }) => { duplex.destroy() } },
  'destroys it after a write': { run: (request, { duplex }) => { duplex.write('some'); duplex.destroy(new Error('of the handler')) } },
  'destroys it, later': { run: async (request, { duplex }) => { await immediate(); duplex.destroy(new Error('of the handler')); await immediate(); duplex.destroy() } },
  'leaves its loop': {
    run: async (request, { duplex }) => {
      for await (const chunk of duplex) if (chunk.length > 0) break
      duplex.end('end')
    }
  },
  'pauses and goes away': {
    run: (request, { duplex }) => {
      duplex.on('data', () => duplex.pause())
      duplex.end('end')
    }
  },
  'pipes without error handling': { run: (request, { duplex }) => { Readable.from(function * () { yield 'a'; throw new Error('of the source') }()).on('error', () => {}).pipe(duplex) } },
  'wrong length': { run: (request, reply) => { reply.header('content-length', 5).duplex.end('too much of it') } },
  'too short': { run: (request, reply) => { reply.header('content-length', 50).duplex.end('too little') } },
  'wrong field': { run: (request, reply) => { reply.header('x-a', 'a\r\nb: c').duplex.end('a') } },
  'framing field': { run: (request, reply) => { reply.header('transfer-encoding', 'gzip').duplex.end('a') } },
  'wrong status': { run: (request, reply) => { reply.code(102).duplex.end('a') } },
  'wrong upgrade': { run: (request, reply) => { reply.code(101).duplex.write('a') } },
  'body of 204': { run: async (request, reply) => { reply.code(204).duplex.end('a') } },
  'wrong type': { run: async function * () { yield 'a'; yield { a: 1 } } },
  'throws in an event': { run: (request, { duplex }) => { ignoreErrors(duplex).on('end', () => { duplex.destroy(new Error('in an event')) }).resume() } },
  'rejects at the end': {
    run: async (request, { duplex }) => {
      duplex.end('end')
      await immediate()
      throw new Error('after the response')
    }
  },
  'reads again': {
    run: async (request, { duplex }) => {
      for await (const chunk of duplex) if (chunk.length > 5) break
      for await (const chunk of duplex) duplex.write(chunk)
      for await (const chunk of duplex) duplex.write(chunk)
      duplex.end()
    }
  },
  hijacks: {
    run: (request, reply) => {
      reply.hijack()
      reply.duplex.end('hijacked')
    }
  }
}

/** Without an error listener, the error of a stream ends the process, as in any program. */
function ignoreErrors<T extends Duplex> (stream: T): T {
  return stream.on('error', () => {})
}
