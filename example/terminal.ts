// A terminal client that shows both directions. It sends what you type, line by line, and shows the response as it arrives.
// Run `npm start` in one terminal, and `npm run example:terminal [http://127.0.0.1:3000/clock]` in another.

import { createInterface } from 'node:readline'
import { pipeline } from 'node:stream/promises'
import { styleText } from 'node:util'
import { open } from 'fastify-duplex/client'

export async function converse (url: string, input: NodeJS.ReadableStream, output: NodeJS.WritableStream): Promise<void> {
  const show = (color: 'cyan' | 'green' | 'gray', direction: string, text: string): void => {
    for (const line of text.trimEnd().split('\n')) output.write(styleText(color, `${direction.padEnd(5)} ${line}\n`))
  }

  // The head of the request is sent at once: the server may answer before the first line is typed.
  const call = open(url, { method: 'POST', headers: { 'content-type': 'text/plain; charset=utf-8' } }).setEncoding('utf8')
  const typedLines = createInterface({ input })
  const sending = pipeline(async function * () {
    for await (const line of typedLines) {
      show('cyan', 'up', line)
      yield line + '\n'
    }
    show('gray', 'up', '(end)')
  }, call)

  const receiving = async (): Promise<void> => {
    const { statusCode, statusMessage } = await call.response
    show('gray', 'down', `${statusCode} ${statusMessage}`)
    // The end of the response leaves the rest of the request to be sent.
    for await (const chunk of call.iterator({ destroyOnReturn: false })) show('green', 'down', chunk)
    show('gray', 'down', '(end)')
    if (Object.keys(call.trailers).length > 0) show('gray', 'down', JSON.stringify(call.trailers))
  }

  // Behind the response, or without one, more input is of no use.
  await Promise.all([sending, receiving().finally(() => typedLines.close())])
}

if (require.main === module) {
  converse(process.argv[2] ?? 'http://127.0.0.1:3000/upper', process.stdin, process.stdout).catch((error) => {
    console.error(error.message)
    process.exitCode = 1
  })
}
