// Has a face say a recording (raw s16le mono, no header) and reports what came back, as JSON.
//
//   node live.js localhost:50051 ../../proto speech.s16le 16000 [portrait]
//
// The sound that comes back is written beside the input, as speech.s16le.back.
"use strict";

const fs = require("fs");
const path = require("path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const PIECE_BYTES = 65536;

function connect(address, protoFolder) {
  const definition = loader.loadSync(path.join("viva", "v1", "avatar.proto"), {
    includeDirs: [protoFolder],
    keepCase: true,
    longs: Number,
    enums: String,
    oneofs: true,
    defaults: true,
  });
  const { viva } = grpc.loadPackageDefinition(definition);
  return new viva.v1.AvatarService(address, grpc.credentials.createInsecure(), {
    "grpc.max_receive_message_length": 64 << 20,
  });
}

function metadata() {
  const said = new grpc.Metadata();
  if (process.env.VIVA_API_KEY) said.set("authorization", `Bearer ${process.env.VIVA_API_KEY}`);
  return said;
}

function talk(client, pcm, sampleRate, portrait) {
  return new Promise((resolve, reject) => {
    const report = { parts: [], events: [], pictures: 0, keyframes: 0, monotonic: true };
    const sound = [];
    let lastPicture = -1;
    const call = client.converse(metadata());
    call.on("error", (error) => {
      client.close();
      reject(error);
    });
    call.on("data", ({ part, ...message }) => {
      if (report.parts.at(-1) !== part) report.parts.push(part);
      if (part === "event") report.events.push(message.event.kind);
      if (part !== "media") return;
      const { media } = message;
      if (media.payload === "pcm_sound" && media.utterance === "hello") {
        sound.push(media.pcm_sound.s16le);
      } else if (media.payload === "encoded_picture") {
        report.monotonic = report.monotonic && media.pts > lastPicture;
        lastPicture = media.pts;
        report.pictures += 1;
        report.keyframes += media.encoded_picture.is_keyframe ? 1 : 0;
      }
    });
    call.on("end", () => {
      client.close();
      resolve({ report, sound: Buffer.concat(sound) });
    });
    call.write({
      config: { portrait_name: portrait, sample_rate_hz: sampleRate, picture_format: "PICTURE_FORMAT_H264" },
    });
    for (let at = 0; at < pcm.length; at += PIECE_BYTES) {
      call.write({ sound: { utterance: "hello", pcm_s16le: pcm.subarray(at, at + PIECE_BYTES) } });
    }
    call.write({ end_of_stream: {} });
    call.end();
  });
}

async function main() {
  const [address, protoFolder, file, sampleRate, portrait = ""] = process.argv.slice(2);
  const client = connect(address, protoFolder);
  const { report, sound } = await talk(client, fs.readFileSync(file), Number(sampleRate), portrait);
  fs.writeFileSync(`${file}.back`, sound);
  console.log(JSON.stringify(report));
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
