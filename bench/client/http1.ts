// HTTP/1.1: encodes chunked requests and scans the responses. It knows only what the servers of this benchmark send.

import type { Protocol, ResponseEvents, Session } from './session.ts'

const HEAD = 0
const SIZE = 1
const CHUNK = 2
const CHUNK_END = 3
const END = 4
const LENGTH = 5

const LF = 0x0a

class Http1Session implements Session {
  readonly credit = Infinity
  willClose = false
  private readonly events: ResponseEvents
  private state = HEAD
  private head = ''
  private left = 0
  private skip = 0

  constructor (events: ResponseEvents) {
    this.events = events
  }

  consumeCredit (): void {}

  read (bytes: Buffer, length: number): void {
    let at = 0
    while (at < length) {
      switch (this.state) {
        case HEAD:
          at = this.readHead(bytes, at, length)
          break
        case SIZE: {
          const byte = bytes[at++]
          if (byte === LF) {
            this.state = this.left === 0 ? END : CHUNK
            this.skip = 2
          } else if (byte >= 0x30 && byte <= 0x39) {
            this.left = this.left * 16 + byte - 0x30
          } else if (byte >= 0x41 && byte <= 0x66) {
            this.left = this.left * 16 + (byte | 0x20) - 0x57
          }
          break
        }
        case CHUNK:
        case LENGTH: {
          const to = Math.min(length, at + this.left)
          this.events.onData(bytes, at, to)
          this.left -= to - at
          at = to
          if (this.left > 0) break
          if (this.state === CHUNK) this.state = CHUNK_END
          else this.endMessage()
          break
        }
        case CHUNK_END:
          at++
          if (--this.skip === 0) this.state = SIZE
          break
        default: // END: these servers send no trailers
          at++
          if (--this.skip === 0) this.endMessage()
      }
    }
  }

  private readHead (bytes: Buffer, at: number, length: number): number {
    const before = this.head.length
    this.head += bytes.toString('latin1', at, Math.min(length, at + 4096))
    const end = this.head.indexOf('\r\n\r\n')
    if (end === -1) {
      if (this.head.length > 16384) throw new Error('The response head does not end')
      return at + this.head.length - before
    }
    const head = this.head.slice(0, end + 2).toLowerCase()
    this.head = ''
    if (!head.startsWith('http/1.1 200')) throw new Error(`Unexpected response: ${head.slice(0, head.indexOf('\r'))}`)
    this.willClose = head.includes('\r\nconnection: close\r\n')
    this.left = 0
    if (head.includes('\r\ntransfer-encoding: chunked\r\n')) {
      this.state = SIZE
    } else {
      const field = head.indexOf('\r\ncontent-length: ')
      if (field === -1) throw new Error('The response has no framing')
      this.left = parseInt(head.slice(field + 18), 10)
      if (this.left === 0) this.endMessage()
      else this.state = LENGTH
    }
    return at + end + 4 - before
  }

  private endMessage (): void {
    this.state = HEAD
    this.events.onEnd()
  }
}

function encodeHead (path: string, hasBody: boolean, contentType?: string): Buffer {
  return Buffer.from(hasBody
    ? `POST ${path} HTTP/1.1\r\nHost: bench\r\nContent-Type: ${contentType}\r\nTransfer-Encoding: chunked\r\n\r\n`
    : `GET ${path} HTTP/1.1\r\nHost: bench\r\n\r\n`)
}

function encodeChunk (content: Buffer): Buffer {
  return Buffer.concat([Buffer.from(content.length.toString(16) + '\r\n'), content, Buffer.from('\r\n')])
}

const lastChunk = Buffer.from('0\r\n\r\n')

function http1With (contentType: string): Protocol {
  const encodeHeadWith: Protocol['encodeHead'] = (path, hasBody, type = contentType) => encodeHead(path, hasBody, type)
  return {
    createSession: (events) => new Http1Session(events),
    maxChunk: Infinity,
    encodeHead: encodeHeadWith,
    encodeChunk,
    lastChunk,
    encodeExchange: (path, content) => content.length === 0 ? encodeHead(path, false) : Buffer.concat([encodeHeadWith(path, true), encodeChunk(content), lastChunk])
  }
}

export const http1 = http1With('application/octet-stream')

/** To routes of items. */
export const http1Lines = http1With('application/jsonl')
