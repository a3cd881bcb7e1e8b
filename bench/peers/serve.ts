// What all servers of the benchmark in JavaScript share: they tell their parent the port, collect garbage and close the app when
// it asks, exit with it, count the bytes of an upload, and generate a download.

import type { AddressInfo, Server } from 'node:net'
import { Readable, Writable } from 'node:stream'
import { PATTERN, PERIOD } from '../client/pattern.ts'

/** The plugin uses `gc` where the process exposes it. Of the peers, only those with the argument `gc` expose it. */
const { gc } = globalThis
if (!process.argv.includes('gc')) globalThis.gc = undefined

export interface Answers {
  /** What to tell the parent with each collection of garbage. */
  count?: () => object
  close?: () => Promise<unknown>
}

export function serve (server: Server, answers?: Answers): void {
  const onListening = (): void => announce({ port: (server.address() as AddressInfo).port }, answers)
  if (server.listening) onListening()
  else server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, onListening)
}

export function announce (where: { port: number, pid?: number }, { count, close }: Answers = {}): void {
  sendToParent(where)
  process.stdin.on('data', async (order) => {
    if (String(order) === 'close\n') {
      const start = performance.now()
      await close!()
      sendToParent({ seconds: (performance.now() - start) / 1000 })
      return
    }
    // Twice: the second collection frees what finalizers have released in the first.
    gc?.()
    gc?.()
    sendToParent({ collected: true, ...count?.() })
  })
  process.stdin.on('end', () => process.exit())
}

function sendToParent (message: object): void {
  process.stdout.write(JSON.stringify(message) + '\n')
}

export interface Download {
  length: number
  chunkSize: number
}

export function parseDownload (url: string): Download {
  const query = new URLSearchParams(url.slice(url.indexOf('?')))
  return { length: Number(query.get('length')), chunkSize: Number(query.get('size')) }
}

/** `length` bytes of the pattern, in chunks of `chunkSize`. */
export class Source extends Readable {
  private readonly chunkSize: number
  private left: number
  private at = 0

  constructor ({ length, chunkSize }: Download) {
    super()
    this.chunkSize = chunkSize
    this.left = length
  }

  override _read (): void {
    while (this.left > 0) {
      const chunk = PATTERN.subarray(this.at, this.at + this.chunkSize)
      this.at = (this.at + this.chunkSize) % PERIOD
      this.left -= this.chunkSize
      if (!this.push(chunk)) return
    }
    this.push(null)
  }
}

/** Counts the bytes written to it. */
export class Counter extends Writable {
  size = 0

  override _write (chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.size += chunk.length
    done()
  }

  override _writev (chunks: { chunk: Buffer }[], done: () => void): void {
    for (const { chunk } of chunks) this.size += chunk.length
    done()
  }
}
